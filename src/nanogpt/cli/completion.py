"""nanogpt completion: a script that lets the shell complete commands, options and recipes.

The script holds every word. It is made from the parsers, so it has to be made again after an
update, and pressing Tab starts no Python.
"""

import importlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nanogpt.cli import COMMANDS
from nanogpt.cli.settings import ASK, Actions, Answer, Parser, variants

ABOUT = """\
Print a script that lets the shell complete commands, options and recipes. To switch it on:

  bash   eval "$(nanogpt completion bash)"              in ~/.bashrc
  zsh    eval "$(nanogpt completion zsh)"               in ~/.zshrc, after compinit
  fish   nanogpt completion fish > ~/.config/fish/completions/nanogpt.fish"""


@dataclass(frozen=True)
class Option:
    """An option of a command."""

    names: Sequence[str]  # such as -h and --help
    text: str
    takes_value: bool
    choices: Sequence[str]  # the values, where they are known


@dataclass(frozen=True)
class Place:
    """What can be written after some words, such as after `nanogpt lab run`."""

    words: Mapping[str, str]  # commands, actions or recipes, each with its explanation
    options: Sequence[Option]


def main(arguments: Sequence[str]) -> None:
    """Print the script."""
    parser = Parser("completion", ABOUT)
    parser.add_argument("shell", choices=list(SHELLS))
    shell = parser.parse(arguments).shell
    print(SHELLS[shell](dict(places())))


def places() -> Iterator[tuple[str, Place]]:
    """What can be written after each command and action, by the words so far."""
    yield "", Place(COMMANDS, [])
    for command in COMMANDS:
        about = asked(importlib.import_module(f"nanogpt.cli.{command}").main)
        if isinstance(about, Parser):
            yield command, place_of(about)
            continue
        texts = {n: (action.__doc__ or "").partition(".")[0] for n, action in about.items()}
        yield command, Place(texts, [])
        for name, action in about.items():
            found = asked(action)
            assert isinstance(found, Parser)
            yield f"{command} {name}", place_of(found)


def asked(command: Callable[[Sequence[str]], int | None]) -> Parser | Actions:
    """The parser of a command, or its actions."""
    try:
        command(ASK)
    except Answer as answer:
        return answer.about
    raise AssertionError(f"{command} has no parser")


def place_of(parser: Parser) -> Place:
    """The words and options of one parser."""
    words, options = dict.fromkeys(parser.names, ""), []
    tables = {setting: list(table) for setting, table in variants().items()}
    for action in parser._actions:
        choices = [str(value) for value in action.choices or tables.get(action.dest, [])]
        text = parser.help_of_hidden.get(action, action.help or "").replace("%%", "%")
        if action.option_strings:
            takes_value = action.nargs != 0
            options.append(
                Option(action.option_strings, text.partition(" (default")[0], takes_value, choices)
            )
        else:
            words |= dict.fromkeys(choices, "")
    return Place(words, options)


BASH = """\
# Completion of nanogpt for bash. Where no word below fits, bash completes files.
_nanogpt() {
  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" place=""
  local names="" options="" values=""
  [[ $COMP_CWORD -gt 1 ]] && place="${COMP_WORDS[1]}"
  case "$place" in
    @NESTED@) [[ $COMP_CWORD -gt 2 ]] && place="$place ${COMP_WORDS[2]}" ;;
  esac
  case "$place" in
@PLACES@
  esac
  case "$place $before" in
@CHOICES@
  esac
  if [[ $current == -* ]]; then
    names="$options"
  elif [[ $before == --* ]]; then
    names="$values"
  fi
  COMPREPLY=($(compgen -W "$names" -- "$current"))
}
complete -o default -F _nanogpt nanogpt"""


def bash(found: Mapping[str, Place]) -> str:
    """The script for bash."""
    nested, choices, lines = set(), [], []
    for name, place in found.items():
        if " " in name:
            nested.add(name.partition(" ")[0])
        options = [each for option in place.options for each in option.names]
        names, flags = shlex.quote(" ".join(place.words)), shlex.quote(" ".join(options))
        lines.append(f"    {shlex.quote(name)}) names={names} options={flags} ;;")
        for option in place.options:
            values = shlex.quote(" ".join(option.choices))
            here = [shlex.quote(f"{name} {each}") for each in option.names]
            choices += [f"    {each}) values={values} ;;" for each in here if option.choices]
    script = BASH.replace("@NESTED@", "|".join(sorted(nested)))
    return script.replace("@PLACES@", "\n".join(lines)).replace("@CHOICES@", "\n".join(choices))


def zsh(found: Mapping[str, Place]) -> str:
    """The script for zsh, which runs bash's."""
    return "autoload -U +X bashcompinit && bashcompinit\n" + bash(found)


FISH = """\
# Completion of nanogpt for fish.
function __nanogpt_at
    set -l written (commandline -opc)
    set -e written[1]
    test "$written" = "$argv"
end
function __nanogpt_after
    set -l written (commandline -opc)
    set -e written[1]
    string match -q -- "$argv *" "$written "
end
"""


def fish(found: Mapping[str, Place]) -> str:
    """The script for fish."""
    lines = []
    for name, place in found.items():
        nested = not name or any(other.startswith(f"{name} ") for other in found)
        here = "__nanogpt_at" if nested else "__nanogpt_after"  # an action comes at once
        start = f"complete -c nanogpt -n {quoted(f'{here} {name}'.strip())}"
        for word, text in place.words.items():
            lines.append(f"{start}{' -f' if nested else ''} -a {word} -d {quoted(text)}")
        for option in place.options:
            flags = " ".join(
                f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}"
                for each in option.names
            )
            values = f" -x -a {quoted(' '.join(option.choices))}" if option.choices else " -r"
            lines.append(
                f"{start} {flags}{values if option.takes_value else ''} -d {quoted(option.text)}"
            )
    return FISH + "\n".join(lines)


def quoted(text: str) -> str:
    """A string for fish.

    >>> print(quoted("GPT-2's"))
    'GPT-2\\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
