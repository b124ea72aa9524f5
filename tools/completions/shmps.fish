# fish completion of shmps. It asks `shmps help` and `shmps ls`, so it knows what the tool knows.

# Options of a verb, a line each: --NAME, what its argument is called, its text, -X.
function __shmps_options
    $argv[1] help $argv[2..] 2>/dev/null </dev/null | string replace -rf \
        '^ +(?:(-\w), )?(--[a-z-]+) (\S*) +(\S.*)' '$2\x1f$3\x1f$4\x1f$1'
end

# What can stand where help says WORD; argv: program, WORD, the option's text, instance.
function __shmps_candidates
    switch $argv[2]
        case TOPIC FILTER
            set -l instance
            test -n "$argv[4]"; and set instance --instance $argv[4]
            $argv[1] $instance ls --json 2>/dev/null </dev/null |
                string replace -rf '^\{ *"topic": *"((?:[^"\\\\]|\\\\.)*)".*' '$1' |
                string replace -ra '\\\\(.)' '$1'
        case VERB
            $argv[1] help 2>/dev/null </dev/null |
                string replace -rf '^  ([a-z]+)(?: \S+)* {2,}(.*)' '$1\t$2'
        case NAME
            for directory in /dev/shm/shmps.(id -u).*.dir
                string replace -r '.*\.([^.]+)\.dir$' '$1' $directory
            end
        case KEY
            string replace -r ';.*' '' -- $argv[3] | string replace -ra ', | or ' '\n'
    end
end

# What is wanted behind an option of __shmps_options' lines: WORD and text, or nothing.
function __shmps_wanted
    for line in $argv[2..]
        set -l part (string split \x1f -- $line)
        if contains -- $argv[1] $part[1] $part[4]; and test -n "$part[2]"
            printf '%s\n' $part[2] $part[3]
            return
        end
    end
end

function __shmps
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -l options (__shmps_options $program)
    set -l verb
    set -l instance ''
    set -l wanted
    set -l places
    set -l place 1
    for word in $words[2..]
        if set -q wanted[1]
            test $wanted[1] = NAME; and set instance $word
            set wanted
        else if string match -q -- '--instance=*' $word
            set instance (string replace -- --instance= '' $word)
        else if string match -q -- '-*' $word
            set wanted (__shmps_wanted $word $options)
        else if not set -q verb[1]
            set verb $word
            set options (__shmps_options $program $verb)
            set places ($program help $verb 2>/dev/null </dev/null |
                string replace -rf '^usage: shmps [a-z]+ \[OPTIONS\] *' '' | string split -n ' ')
        else
            set place (math $place + 1)
        end
    end
    if set -q wanted[1]
        __shmps_candidates $program $wanted[1] $wanted[2] $instance
    else if string match -q -- '--*=*' $current
        set -l name (string replace -r '=.*' '' -- $current)
        set wanted (__shmps_wanted $name $options)
        set -q wanted[1]; and __shmps_candidates $program $wanted[1] $wanted[2] $instance |
            string replace -r '^' -- "$name="
    else if string match -q -- '-*' $current
        for line in $options
            set -l part (string split \x1f -- $line)
            printf '%s\t%s\n' $part[1] $part[3]
        end
        set -q verb[1]; or printf '%s\n' --help
    else if not set -q verb[1]
        __shmps_candidates $program VERB
    else
        # The last word may come again and again.
        string match -q '*...*' -- "$places"; and set place (math min $place, (count $places))
        set -q places[$place]; and __shmps_candidates $program \
            (string replace -ra '[][.]' '' -- $places[$place]) '' $instance
    end
end

complete -c shmps -f -a '(__shmps)'
