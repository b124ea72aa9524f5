# bash completion of shmps. It asks `shmps help` and `shmps ls`, so it knows what the tool knows.

# Options of a verb, a line each: --NAME, what its argument is called, its text; -X likewise.
# Between them the unit separator: of tabs, `read` takes several for one.
_shmps_options() {
    "$1" help ${2:+"$2"} 2>/dev/null </dev/null | sed -nE \
        -e 's/^ +(-[[:alnum:]]), (--[a-z-]+) ([^ ]*) +([^ ].*)/\1\x1f\3\x1f\4\n\2\x1f\3\x1f\4/p' \
        -e 's/^ +(--[a-z-]+) ([^ ]*) +([^ ].*)/\1\x1f\2\x1f\3/p'
}

# What can stand where help says WORD; $3 is the option's text.
_shmps_candidates() {
    case $2 in
    TOPIC | FILTER)
        "$1" ${instance:+--instance "$instance"} ls --json 2>/dev/null </dev/null |
            sed -nE -e 's/^\{ *"topic": *"(([^"\\]|\\.)*)".*/\1/' -e 's/\\(.)/\1/g' -e p
        ;;
    VERB) "$1" help 2>/dev/null </dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p' ;;
    NAME) compgen -G "/dev/shm/shmps.$UID.*.dir" | sed -E 's/.*\.([^.]+)\.dir$/\1/' ;;
    KEY) sed -E -e 's/;.*//' -e 's/, | or /\n/g' <<<"$3" ;;
    esac
}

_shmps() {
    local program=$1 verb='' instance='' argument='' text='' options words places place=0
    local word name wanted help candidate cur quoted=''
    # As the shell will read them, but for quotes; bash's own COMP_WORDS are broken at : and =.
    # shellcheck disable=SC2162 # a backslash is to keep a space
    IFS=$' \t' read -a words <<<"${COMP_LINE:0:COMP_POINT}x"
    cur=${words[-1]%x}
    options=$(_shmps_options "$program")
    for word in "${words[@]:1:${#words[@]}-2}"; do
        if [[ -n $argument ]]; then
            [[ $argument != NAME ]] || instance=$word
            argument=
        elif [[ $word == --instance=* ]]; then
            instance=${word#*=}
        elif [[ $word == -* ]]; then
            while IFS=$'\x1f' read -r name wanted help; do
                [[ $name != "$word" ]] || argument=$wanted text=$help
            done <<<"$options"
        elif [[ -z $verb ]]; then
            verb=$word
            options=$(_shmps_options "$program" "$verb")
            read -ra places < <("$program" help "$verb" 2>/dev/null </dev/null |
                sed -n 's/^usage: shmps [a-z]* \[OPTIONS\] *//p')
        else
            place=$((place + 1))
        fi
    done
    if [[ $cur == --*=* ]]; then
        while IFS=$'\x1f' read -r name wanted help; do
            [[ $name != "${cur%%=*}" ]] || argument=$wanted text=$help
        done <<<"$options"
        cur=${cur#*=}
    elif [[ -z $argument && $cur != -* ]]; then
        argument=VERB
        if [[ -n $verb ]]; then # the last word may come again and again
            ((place < ${#places[@]})) || [[ ${places[*]} == *...* ]] || return 0
            argument=${places[place]:-${places[-1]}}
            argument=${argument#[}
            argument=${argument%]}
            argument=${argument%...}
        fi
    fi
    [[ $cur != [\'\"]* ]] || quoted=${cur:0:1} cur=${cur:1}
    while IFS= read -r candidate; do
        [[ -n $candidate && $candidate == "$cur"* ]] || continue
        # bash replaces what stands behind the last colon, where it breaks words.
        [[ $cur != *:* || -n $quoted || $COMP_WORDBREAKS != *:* ]] ||
            candidate=${candidate#"${cur%:*}:"}
        [[ -n $quoted ]] || printf -v candidate %q "$candidate"
        COMPREPLY+=("$candidate")
    done < <(
        if [[ -n $argument ]]; then
            _shmps_candidates "$program" "$argument" "$text"
        else
            cut -d $'\x1f' -f 1 <<<"$options"
            [[ -n $verb ]] || printf '%s\n' --help
        fi
    )
}

complete -F _shmps shmps
