"""Completion for bash, zsh and fish, from the command line as data.

The scripts are static: no Python starts when somebody presses tab. Agents are completed by listing STATE, as
`Places.registered` does: a name is registered when its key exists.
"""

from collections.abc import Iterator

from .surface import AGENT, TARGETS, Command, Option, Value

COMMON = [Option("--help", "Show help and exit.")]
GLOBAL = [*COMMON, Option("--version", "Show the version and exit.")]
NOTICE = "# Made by `nox -s docs` from the command line's own parsers; edit tools/completion.py instead."


# --- bash -------------------------------------------------------------------------------------------------------------

BASH = r"""# bash completion for backchannel(1)
@NOTICE@

# Adds this user's agents to the array `found`.
_backchannel_agents() {
    local state=${BACKCHANNEL_STATE:-} key
    if [[ -z $state ]]; then
        state=${XDG_STATE_HOME:-}
        [[ $state == /* ]] || state=~/.local/state
        state+=/backchannel
    fi
    for key in "$state"/*/key; do
        [[ -e $key ]] || continue
        key=${key%/key}
        found+=("${key##*/}")
    done
}

_backchannel() {
    local current=${COMP_WORDS[COMP_CWORD]} command='' option='' prefix='' kind=''
    local -i i words=0 only_words=0
    local -a found=()
    COMPREPLY=()
    # Readline may have cut words at = and @.
    for ((i = 1; i < COMP_CWORD; i++)); do
        local word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then
            [[ -n $option ]] || i+=1
        elif [[ $word == @ ]]; then
            continue
        elif [[ -n $option ]]; then
            option=''
        elif [[ $word == -- ]]; then
            only_words=1
        elif [[ $word == -* ]] && ((!only_words)); then
            case "$command $word" in
@VALUED@
                ) option=$word ;;
            esac
        elif [[ -z $command ]]; then
            command=$word
        else
            words+=1
        fi
    done
    [[ $current == = ]] && current=''

    if [[ -n $option ]]; then
        case "$command $option" in
@VALUES@
        esac
    elif [[ -z $command ]]; then
        if [[ $current == -* ]]; then
            found=(@GLOBAL@)
        else
            found=(@COMMANDS@)
        fi
    elif [[ $current == -* ]] && ((!only_words)); then
        case $command in
@OPTIONS@
        esac
    else
        case "$command $words" in
@WORDS@
        esac
    fi

    case $kind in
        agent) _backchannel_agents ;;
        targets)
            if ((COMP_CWORD)) && [[ ${COMP_WORDS[COMP_CWORD - 1]} == @ ]]; then
                found=(all)
            else
                _backchannel_agents
                prefix=${current%"${current##*,}"}
                [[ -n $prefix ]] || found+=(@all)
            fi
            ;;
    esac
    local candidate
    for candidate in "${found[@]}"; do
        [[ $prefix$candidate == "$current"* ]] && COMPREPLY+=("$prefix$candidate")
    done
}

complete -F _backchannel backchannel
"""


def bash(commands: list[Command]) -> str:
    valued: list[str] = []
    values: list[str] = []
    options: list[str] = []
    words: list[str] = []
    for command in commands:
        for option in command.options:
            if option.value is not None:
                valued.append(f'"{command.name} {option.flag}"')
                values += _bash_case(f"{command.name} {option.flag}", option.value)
        flags = " ".join(option.flag for option in [*command.options, *COMMON])
        options.append(f"            {command.name}) found=({flags}) ;;")
        for number, word in enumerate(command.words):
            words += _bash_case(f"{command.name} {number}", word.value, rest=word.repeats, name=command.name)
    fields = {
        "NOTICE": NOTICE,
        "VALUED": " | \\\n".join(f"                {pattern}" for pattern in valued),
        "VALUES": "\n".join(values),
        "GLOBAL": " ".join(option.flag for option in GLOBAL),
        "COMMANDS": " ".join(command.name for command in commands),
        "OPTIONS": "\n".join(options),
        "WORDS": "\n".join(words),
    }
    return _filled(BASH, fields).replace("\n                ) option", ") option")


def _bash_case(pattern: str, value: Value, *, rest: bool = False, name: str = "") -> Iterator[str]:
    """The line of a `case` that says what there is to choose from; none where there is nothing."""
    shown = f'"{name} "*' if rest else f'"{pattern}"'
    if value.words:
        yield f"            {shown}) found=({' '.join(value.words)}) ;;"
    elif value.names:
        yield f"            {shown}) kind={value.names} ;;"


# --- zsh --------------------------------------------------------------------------------------------------------------

ZSH = r"""#compdef backchannel
@NOTICE@

_backchannel_agents() {
    local state=$BACKCHANNEL_STATE
    if [[ -z $state ]]; then
        state=$XDG_STATE_HOME
        [[ $state == /* ]] || state=~/.local/state
        state+=/backchannel
    fi
    local -a agents
    agents=($state/*/key(N:h:t))
    _wanted agents expl agent compadd "$@" -a agents
}

_backchannel_targets() {
    if [[ $PREFIX == *,* ]]; then
        _sequence _backchannel_agents
    else
        _alternative 'all:everybody:(@all)' 'agents:agent:_sequence _backchannel_agents'
    fi
}

_backchannel_commands() {
    local -a commands
    commands=(
@COMMANDS@
    )
    _describe -t commands command commands
}

_backchannel() {
    local curcontext=$curcontext state line ret=1
    typeset -A opt_args
    _arguments -C \
@GLOBAL@
        '1: :_backchannel_commands' \
        '*:: :->words' && ret=0
    [[ $state == words ]] || return ret
    curcontext=${curcontext%:*:*}:backchannel-$words[1]:
    case $words[1] in
@CASES@
    esac
    return ret
}

if [[ $funcstack[1] == _backchannel ]]; then
    _backchannel "$@"
else
    compdef _backchannel backchannel
fi
"""


def zsh(commands: list[Command]) -> str:
    cases = []
    for command in commands:
        specs = [_zsh_option(option) for option in [*command.options, *COMMON]]
        for number, word in enumerate(command.words, 1):
            place = "*" if word.repeats else str(number) + ("" if word.is_required else ":")
            specs.append(f"'{place}:{word.value.metavar}:{_zsh_action(word.value)}'")
        listed = " \\\n".join(f"                {spec}" for spec in specs)
        cases.append(f"        {command.name})\n            _arguments \\\n{listed} && ret=0\n            ;;")
    fields = {
        "NOTICE": NOTICE,
        "COMMANDS": "\n".join(f"        '{c.name}:{_zsh_text(c.help)}'" for c in commands),
        "GLOBAL": "\n".join(f"        {_zsh_option(option, '(- *)')} \\" for option in GLOBAL),
        "CASES": "\n".join(cases),
    }
    return _filled(ZSH, fields)


def _zsh_option(option: Option, excludes: str = "") -> str:
    many = "*" if option.repeats else excludes
    if option.value is None:
        return f"'{many}{option.flag}[{_zsh_text(option.help)}]'"
    # The = says that the value may stand in the same word, or in the next.
    return f"'{many}{option.flag}=[{_zsh_text(option.help)}]:{option.value.metavar}:{_zsh_action(option.value)}'"


def _zsh_action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    return {AGENT: "_backchannel_agents", TARGETS: "_backchannel_targets"}.get(value.names, "")


def _zsh_text(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, "\\" + character)
    return text.replace("'", "'\\''").replace("`", "")


# --- fish -------------------------------------------------------------------------------------------------------------

FISH = r"""# fish completion for backchannel(1)
@NOTICE@

function __backchannel_agents
    set -l state $BACKCHANNEL_STATE
    if test -z "$state"
        set state $XDG_STATE_HOME
        string match -q '/*' -- "$state"; or set state ~/.local/state
        set state $state/backchannel
    end
    for key in $state/*/key
        string replace -r '.*/([^/]+)/key$' '$1' -- $key
    end
end

function __backchannel_targets
    set -l before (string match -r '.*,' -- (commandline -ct))
    if test -n "$before"
        for name in (__backchannel_agents)
            printf '%s%s\n' $before $name
        end
    else
        __backchannel_agents
        printf '@all\teverybody else\n'
    end
end

# Whether this is word number $argv[2] of the command $argv[1]; the command itself is word 0.
function __backchannel_at
    set -l tokens (commandline -opc)
    set -e tokens[1]
    set -l place 0
    set -l command ''
    set -l skip 0
    for token in $tokens
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $token
            contains -- "$command $token" $__backchannel_valued; and set skip 1
        else if test -z "$command"
            set command $token
        else
            set place (math $place + 1)
        end
    end
    test "$command" = "$argv[1]"; and test "$argv[2]" = any -o "$argv[2]" = $place
end

set -g __backchannel_valued \
@VALUED@

complete -c backchannel -f
@GLOBAL@
@COMMANDS@
@CASES@
"""


def fish(commands: list[Command]) -> str:
    valued = [f"    '{c.name} {o.flag}'" for c in commands for o in c.options if o.value is not None]
    start = "-n '__backchannel_at \"\" 0'"
    cases = []
    for command in commands:
        start_of_option = f"complete -c backchannel -n '__backchannel_at {command.name} any'"
        cases += [f"{start_of_option} {_fish_option(option)}" for option in [*command.options, *COMMON]]
        for number, word in enumerate(command.words):
            source = _fish_source(word.value)
            place = "any" if word.repeats else number
            if source:
                cases.append(f"complete -c backchannel -n '__backchannel_at {command.name} {place}' -a {source}")
    fields = {
        "NOTICE": NOTICE,
        "VALUED": " \\\n".join(valued),
        "GLOBAL": "\n".join(f"complete -c backchannel {start} {_fish_option(option)}" for option in GLOBAL),
        "COMMANDS": "\n".join(f"complete -c backchannel {start} -a {c.name} -d {_fish_text(c.help)}" for c in commands),
        "CASES": "\n".join(cases),
    }
    return _filled(FISH, fields)


def _fish_option(option: Option) -> str:
    parts = [f"-l {option.flag.removeprefix('--')}", f"-d {_fish_text(option.help)}"]
    if option.value is not None:
        parts.insert(1, f"-x -a {_fish_source(option.value)}" if _fish_source(option.value) else "-x")
    return " ".join(parts)


def _fish_source(value: Value) -> str:
    if value.words:
        return f"'{' '.join(value.words)}'"
    return {AGENT: "'(__backchannel_agents)'", TARGETS: "'(__backchannel_targets)'"}.get(value.names, "")


def _fish_text(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("`", "")
    return f"'{quoted}'"


# --- helpers ----------------------------------------------------------------------------------------------------------


def _filled(template: str, fields: dict[str, str]) -> str:
    for name, text in fields.items():
        assert template.count(f"@{name}@") == 1, name
        template = template.replace(f"@{name}@", text)
    return template
