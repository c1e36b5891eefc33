# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_worker_global_optspecs
    string join \n c/config= log-level= log-format= h/help V/version
end

function __fish_worker_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_worker_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_worker_using_subcommand
    set -l cmd (__fish_worker_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c worker -n "__fish_worker_needs_command" -s c -l config -d 'The configuration file, for instance etc/consumer.toml' -r -F
complete -c worker -n "__fish_worker_needs_command" -l log-level -d 'A level (error, warn, info, debug, trace) or a filter, before the configuration\'s log.level' -r
complete -c worker -n "__fish_worker_needs_command" -l log-format -d 'How a line of the log is written, before the configuration\'s log.format' -r -f -a "text\t'Time, level, words, key=value details'
json\t'An object a line, for collectors'"
complete -c worker -n "__fish_worker_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c worker -n "__fish_worker_needs_command" -s V -l version -d 'Print version'
complete -c worker -n "__fish_worker_needs_command" -f -a "check" -d 'Print the configuration that holds, each value with where it comes from, or what is wrong'
complete -c worker -n "__fish_worker_needs_command" -f -a "lag" -d 'Print how far each topic is read, as kafka-consumer-groups does, and how it is doing'
complete -c worker -n "__fish_worker_needs_command" -f -a "diagnose" -d 'Look at each topic for a while, and say how it is doing, why, and what to do. Exit code 1 if something needs attention'
complete -c worker -n "__fish_worker_needs_command" -f -a "offsets" -d 'Show or move the committed offsets of the worker\'s groups'
complete -c worker -n "__fish_worker_needs_command" -f -a "dlq" -d 'Look at dead letters, or give them to their sinks again'
complete -c worker -n "__fish_worker_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand check" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand check" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand lag" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand lag" -l interval -d 'Time between two looks, in seconds; 0.5, with --watch 2' -r
complete -c worker -n "__fish_worker_using_subcommand lag" -l json -d 'One JSON object a look'
complete -c worker -n "__fish_worker_using_subcommand lag" -l watch -d 'Go on looking, with rates and the time to catch up'
complete -c worker -n "__fish_worker_using_subcommand lag" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand diagnose" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand diagnose" -l for -d 'How long to look, in seconds; on from there where something stands still, until that is certain' -r
complete -c worker -n "__fish_worker_using_subcommand diagnose" -l json -d 'One JSON object'
complete -c worker -n "__fish_worker_using_subcommand diagnose" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand offsets; and not __fish_seen_subcommand_from show reset migrate help" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand offsets; and not __fish_seen_subcommand_from show reset migrate help" -f -a "show" -d 'Print what each group has committed, where the logs begin and end, and what the state directory remembers'
complete -c worker -n "__fish_worker_using_subcommand offsets; and not __fish_seen_subcommand_from show reset migrate help" -f -a "reset" -d 'Move committed offsets; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand offsets; and not __fish_seen_subcommand_from show reset migrate help" -f -a "migrate" -d 'Take over committed offsets from the shared group into a group a topic, or back; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand offsets; and not __fish_seen_subcommand_from show reset migrate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from show" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from show" -l json -d 'One JSON object'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l topic -d 'A topic of the configuration; may be given several times' -r
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l partition -d 'Only these partitions of the one topic' -r
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l to-offset -d 'To this offset' -r
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l to-time -d 'To the first record of this time or later: RFC 3339 with a zone, or milliseconds since 1970 (UTC)' -r
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l shift-by -d 'By so many offsets from what is committed, forward or (with -) back' -r
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l all-topics -d 'All topics of the configuration'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l to-earliest -d 'To the log start'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l to-latest -d 'To the log end'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l execute -d 'Do it'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -l force -d 'Do it even if this worker runs, its state file can\'t be kept in line, or a group has members (which the broker may refuse itself)'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -s c -l config -d 'The configuration file; its multi_consumer_mode does not matter' -r -F
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -l to-per-topic -d 'From the shared group consumer.group_id into the topics\' own groups (before multi_consumer_mode = true)'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -l to-shared -d 'From the topics\' own groups into the shared group consumer.group_id (before multi_consumer_mode = false)'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -l source-wins -d 'Where the target group has a lower offset of its own, take the source\'s, and pass over what lies between'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -l execute -d 'Do it'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -l force -d 'Do it even if this worker runs, its state file can\'t be kept in line, or a group has members (which the broker may refuse itself)'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from migrate" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print what each group has committed, where the logs begin and end, and what the state directory remembers'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from help" -f -a "reset" -d 'Move committed offsets; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from help" -f -a "migrate" -d 'Take over committed offsets from the shared group into a group a topic, or back; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand offsets; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand dlq; and not __fish_seen_subcommand_from list show replay help" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand dlq; and not __fish_seen_subcommand_from list show replay help" -f -a "list" -d 'Print a line for each dead letter'
complete -c worker -n "__fish_worker_using_subcommand dlq; and not __fish_seen_subcommand_from list show replay help" -f -a "show" -d 'Print dead letters in full'
complete -c worker -n "__fish_worker_using_subcommand dlq; and not __fish_seen_subcommand_from list show replay help" -f -a "replay" -d 'Give dead letters to their sinks again, in the order of the file; without --execute it only says how many'
complete -c worker -n "__fish_worker_using_subcommand dlq; and not __fish_seen_subcommand_from list show replay help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l file -d 'The file of dead letters, instead of the configuration\'s: one that was put aside, for instance' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l topic -d 'Only those of this topic; may be given several times' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l partition -d 'Only those of this partition' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l from-offset -d 'Only those from this offset on' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l to-offset -d 'Only those up to this offset, which is the last one' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l reason -d 'Only those whose reason has these words' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -l json -d 'As they stand in the file'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l file -d 'The file of dead letters, instead of the configuration\'s: one that was put aside, for instance' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l topic -d 'Only those of this topic; may be given several times' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l partition -d 'Only those of this partition' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l from-offset -d 'Only those from this offset on' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l to-offset -d 'Only those up to this offset, which is the last one' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -l reason -d 'Only those whose reason has these words' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -s c -l config -d 'The configuration file' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l file -d 'The file of dead letters, instead of the configuration\'s: one that was put aside, for instance' -r -F
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l topic -d 'Only those of this topic; may be given several times' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l partition -d 'Only those of this partition' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l from-offset -d 'Only those from this offset on' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l to-offset -d 'Only those up to this offset, which is the last one' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l reason -d 'Only those whose reason has these words' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l sink -d 'Give them to this sink of the configuration, instead of the one that did not take them' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l attempts -d 'How often a sink is tried that fails for now' -r
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l again -d 'Also those that an earlier replay has delivered'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -l execute -d 'Do it'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from replay" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from help" -f -a "list" -d 'Print a line for each dead letter'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print dead letters in full'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from help" -f -a "replay" -d 'Give dead letters to their sinks again, in the order of the file; without --execute it only says how many'
complete -c worker -n "__fish_worker_using_subcommand dlq; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "check" -d 'Print the configuration that holds, each value with where it comes from, or what is wrong'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "lag" -d 'Print how far each topic is read, as kafka-consumer-groups does, and how it is doing'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "diagnose" -d 'Look at each topic for a while, and say how it is doing, why, and what to do. Exit code 1 if something needs attention'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "offsets" -d 'Show or move the committed offsets of the worker\'s groups'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "dlq" -d 'Look at dead letters, or give them to their sinks again'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from check lag diagnose offsets dlq help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from offsets" -f -a "show" -d 'Print what each group has committed, where the logs begin and end, and what the state directory remembers'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from offsets" -f -a "reset" -d 'Move committed offsets; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from offsets" -f -a "migrate" -d 'Take over committed offsets from the shared group into a group a topic, or back; without --execute it only shows what would be done'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from dlq" -f -a "list" -d 'Print a line for each dead letter'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from dlq" -f -a "show" -d 'Print dead letters in full'
complete -c worker -n "__fish_worker_using_subcommand help; and __fish_seen_subcommand_from dlq" -f -a "replay" -d 'Give dead letters to their sinks again, in the order of the file; without --execute it only says how many'
