"""jsonargparse imports what a text names. Here it asks first.

Patches functions of jsonargparse 4.53 by name: a version without them fails loudly when this module is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jsonargparse
import yaml
from jsonargparse import _optionals, _typehints, _util

from lightning_modules.command_line.strict_yaml import check
from robust_asr.storage import trust


@contextmanager
def guarded_imports() -> Iterator[None]:
    """Inside, jsonargparse imports nothing by name but allowed classes, and reads local files of strict YAML only."""
    original, loader = _util.import_object, jsonargparse.get_loader("yaml")
    remote = "s" in _optionals._get_config_read_mode()

    def import_object(name: str, check_path: bool = True) -> Any:
        # Without check_path the name comes from code, a type annotation for one.
        if not check_path or not isinstance(name, str) or "." not in name:
            return original(name, check_path)
        _refusing(trust.check_name, name)
        found = original(name, check_path=False)
        _refusing(trust.check_object, found, name)
        return found

    def strict_loader(text: str) -> Any:
        check(text, where="configuration")
        return loader(text)

    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "jsonargparse"]
    importers = [module for module in modules if getattr(module, "import_object", None) is original]
    check_module, _typehints.check_import_path = _typehints.check_import_path, _check_module
    try:
        _set_all(importers, import_object)
        jsonargparse.set_loader("yaml", strict_loader, (yaml.YAMLError,))
        jsonargparse.set_parsing_settings(config_read_mode_fsspec_enabled=False)
        yield
    finally:
        _set_all(importers, original)
        _typehints.check_import_path = check_module
        jsonargparse.set_loader("yaml", loader, (yaml.YAMLError,))
        jsonargparse.set_parsing_settings(config_read_mode_fsspec_enabled=remote)


class Refused(ImportError, ValueError):
    """A name that is not allowed. Both bases: jsonargparse reports either kind, depending on the place, as a parsing error."""


def _refusing(rule: Callable[..., None], *arguments: Any) -> None:
    try:
        rule(*arguments)
    except ValueError as error:
        raise Refused(str(error)) from None


def _check_module(name: str) -> None:
    _refusing(trust.check_name, name)


def _set_all(modules: list[Any], function: Callable[..., Any]) -> None:
    for module in modules:
        module.import_object = function
