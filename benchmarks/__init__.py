"""Speed and memory, measured by hand or by ``make bench``; each baseline runs beside ours in the same process."""
