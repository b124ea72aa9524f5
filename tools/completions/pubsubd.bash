# bash completion of pubsubd. It asks `pubsubd --help`, so it knows what the daemon knows.

_pubsubd() {
    local program=$1 cur=$2 option=$3 argument
    [[ $option != = ]] || option=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $cur != = ]] || cur='' option=$3
    argument=$("$program" --help 2>/dev/null </dev/null | sed -nE "s/^ +$option ([^ ]+) .*/\1/p")
    case $argument in
    '')
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null </dev/null |
            sed -nE -e '/^ +--/!d' -e 's/   .*//' -e p | grep -oE -e '--[a-z-]+')" -- "$cur")
        ;;
    PATH | FILE)
        compopt -o filenames 2>/dev/null # not to be had where no line is edited
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    *\|*) mapfile -t COMPREPLY < <(compgen -W "${argument//|/ }" -- "$cur") ;;
    esac
}

complete -F _pubsubd pubsubd
