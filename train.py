from lightning_modules.command_line.cli import main

if __name__ == "__main__":
    main()
