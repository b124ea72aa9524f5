# fish completion of pubsubd. It asks `pubsubd --help`, so it knows what the daemon knows.

for line in (pubsubd --help 2>/dev/null </dev/null | string match -r '^ +--.*')
    set -l text (string replace -rf '^ +--.*? {2,}(.*)' '$1' -- $line)
    for option in (string match -ra -- '--[a-z-]+' (string replace -r '   .*' '' -- $line))
        set -l name (string replace -- -- '' $option)
        set -l wanted (string replace -rf "^ +$option (\S+) .*" '$1' -- $line)
        switch "$wanted"
            case ''
                complete -c pubsubd -f -l $name -d "$text"
            case PATH FILE
                complete -c pubsubd -r -F -l $name -d "$text"
            case '*'
                set -l values
                string match -q '*|*' -- $wanted; and set values (string split '|' -- $wanted)
                complete -c pubsubd -x -l $name -d "$text" -a "$values"
        end
    end
end
