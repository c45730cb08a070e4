# fish completion for backchannel(1)
# Made by `nox -s docs` from the command line's own parsers; edit tools/completion.py instead.

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
    'send --as' \
    'send --wait' \
    'send --timeout' \
    'send --ttl' \
    'send --priority' \
    'send --durability' \
    'send --key' \
    'send --header' \
    'send --reply-to' \
    'recv --as' \
    'recv --wait' \
    'recv --max' \
    'recv --kind' \
    'recv --session' \
    'hook --as' \
    'ask --as' \
    'ask --timeout' \
    'ask --key' \
    'reply --as' \
    'reply --from' \
    'reply --delivery' \
    'ack --as' \
    'ack --delivery' \
    'ack --from' \
    'reject --as' \
    'reject --delivery' \
    'reject --from' \
    'reject --reason' \
    'reject --retry-after' \
    'release --as' \
    'release --delivery' \
    'release --from' \
    'status --as' \
    'status --to' \
    'status --from' \
    'cancel --as' \
    'cancel --to' \
    'cancel --from' \
    'peek --as' \
    'peek --max' \
    'log --as' \
    'log --peer' \
    'log --kind' \
    'log --stage' \
    'log --session' \
    'log --trace' \
    'log --since' \
    'log --until' \
    'log --max' \
    'tap --for' \
    'config --as' \
    'open --as' \
    'open --wait' \
    'open --max-messages' \
    'open --max-bytes' \
    'open --deadline' \
    'open --idle-timeout' \
    'accept --as' \
    'accept --max-messages' \
    'accept --max-bytes' \
    'accept --deadline' \
    'accept --idle-timeout' \
    'say --as' \
    'say --timeout' \
    'say --key' \
    'close --as' \
    'close --result' \
    'abort --as' \
    'abort --reason' \
    'progress --as' \
    'sessions --as' \
    'trace --as' \
    'trace --kind' \
    'trace --since' \
    'trace --until' \
    'export --as' \
    'export --format' \
    'chat --as' \
    'chat --wait' \
    'serve --max' \
    'serve --exec' \
    'init --agent' \
    'init --dir' \
    'init --profile' \
    'init --hermes' \
    'uninit --agent' \
    'uninit --dir' \
    'uninit --profile' \
    'uninit --hermes' \
    'mcp --as' \
    'metrics --textfile' \
    'purge --older-than' \
    'purge --keep'

complete -c backchannel -f
complete -c backchannel -n '__backchannel_at "" 0' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at "" 0' -l version -d 'Show the version and exit.'
complete -c backchannel -n '__backchannel_at "" 0' -a send -d 'Stores TEXT (or standard input) in TO\'s mailbox and prints the receipt.'
complete -c backchannel -n '__backchannel_at "" 0' -a recv -d 'Prints what is waiting for the agent, and acks what was printed.'
complete -c backchannel -n '__backchannel_at "" 0' -a hook -d 'Run by Claude Code, Codex and Gemini CLI: puts new mail before the model.'
complete -c backchannel -n '__backchannel_at "" 0' -a up -d 'Make and start agents; says what it did.'
complete -c backchannel -n '__backchannel_at "" 0' -a down -d 'Stop agents; pushes fail until up.'
complete -c backchannel -n '__backchannel_at "" 0' -a remove -d 'Unregister an agent; refuses while mail waits.'
complete -c backchannel -n '__backchannel_at "" 0' -a pause -d 'Stop the handing out: mail waits, nothing is lost.'
complete -c backchannel -n '__backchannel_at "" 0' -a resume -d 'Hand out again.'
complete -c backchannel -n '__backchannel_at "" 0' -a ask -d 'Ask an agent, and print its answer.'
complete -c backchannel -n '__backchannel_at "" 0' -a reply -d 'Answer a message: it is done, and the text goes to its sender.'
complete -c backchannel -n '__backchannel_at "" 0' -a ack -d 'Say that you have these messages.'
complete -c backchannel -n '__backchannel_at "" 0' -a reject -d 'Say no to these messages or offered sessions, and why.'
complete -c backchannel -n '__backchannel_at "" 0' -a release -d 'Give these messages back; they are handed out again.'
complete -c backchannel -n '__backchannel_at "" 0' -a status -d 'One message\'s receipt, or your daemon\'s own state.'
complete -c backchannel -n '__backchannel_at "" 0' -a cancel -d 'Take a message back while nobody has it.'
complete -c backchannel -n '__backchannel_at "" 0' -a peek -d 'What waits for you, without taking it.'
complete -c backchannel -n '__backchannel_at "" 0' -a log -d 'What came to an agent, finished messages included.'
complete -c backchannel -n '__backchannel_at "" 0' -a tap -d 'Live traffic of agents, without taking anything.'
complete -c backchannel -n '__backchannel_at "" 0' -a config -d 'Settings in force, and where each came from.'
complete -c backchannel -n '__backchannel_at "" 0' -a open -d 'Offer a task; prints the session\'s id once the agent accepted.'
complete -c backchannel -n '__backchannel_at "" 0' -a accept -d 'Accept an offered session: you will do its task.'
complete -c backchannel -n '__backchannel_at "" 0' -a say -d 'Say a text in a session.'
complete -c backchannel -n '__backchannel_at "" 0' -a close -d 'You have said all in a session; tell the result.'
complete -c backchannel -n '__backchannel_at "" 0' -a abort -d 'End a session at once, for both.'
complete -c backchannel -n '__backchannel_at "" 0' -a progress -d 'Show the peer that you are still at it; leases begin anew.'
complete -c backchannel -n '__backchannel_at "" 0' -a sessions -d 'Your sessions, or all that is known of one.'
complete -c backchannel -n '__backchannel_at "" 0' -a trace -d 'Who said what when in a session; or what became of a message.'
complete -c backchannel -n '__backchannel_at "" 0' -a export -d 'A session as a document, with its texts.'
complete -c backchannel -n '__backchannel_at "" 0' -a chat -d 'Talk in a session line by line; /quit or the end of input closes it.'
complete -c backchannel -n '__backchannel_at "" 0' -a serve -d 'Let a program be an agent: one run for each session.'
complete -c backchannel -n '__backchannel_at "" 0' -a init -d 'Set another program up to talk through Backchannel; shows what it would change, and asks.'
complete -c backchannel -n '__backchannel_at "" 0' -a uninit -d 'Take back what init set up; the agent and its mail stay.'
complete -c backchannel -n '__backchannel_at "" 0' -a service -d 'Let systemd hold agents\' sockets, and run a daemon only while it is needed.'
complete -c backchannel -n '__backchannel_at "" 0' -a mcp -d 'Serve an agent\'s mailbox as MCP tools, on standard input and output.'
complete -c backchannel -n '__backchannel_at "" 0' -a agents -d 'The agents of this machine.'
complete -c backchannel -n '__backchannel_at "" 0' -a audit -d 'Whether everything ever stored or opened is accounted for; exits 1 if not.'
complete -c backchannel -n '__backchannel_at "" 0' -a metrics -d 'What the daemons counted, as OpenMetrics text; no port.'
complete -c backchannel -n '__backchannel_at "" 0' -a backup -d 'Copy an agent\'s mailbox, while it works or not; checked, 0600.'
complete -c backchannel -n '__backchannel_at "" 0' -a restore -d 'Put a backup in the place of an agent\'s mailbox, which is kept aside.'
complete -c backchannel -n '__backchannel_at "" 0' -a purge -d 'Let the contents of finished messages go; what is unfinished stays.'
complete -c backchannel -n '__backchannel_at "" 0' -a doctor -d 'What is wrong here, and the command that mends it.'
complete -c backchannel -n '__backchannel_at "" 0' -a demo -d 'Three agents talk, in a world of their own; ends and cleans up by itself.'
complete -c backchannel -n '__backchannel_at send any' -l as -x -a '(__backchannel_agents)' -d 'speak as this agent (default: BACKCHANNEL_AGENT; neither: as @user)'
complete -c backchannel -n '__backchannel_at send any' -l wait -x -a 'stored taken acked done' -d 'wait until stored, taken, acked or done; 3 if it ends otherwise'
complete -c backchannel -n '__backchannel_at send any' -l timeout -x -d 'how long, in seconds (default: 10 for the receipt, no end for --wait)'
complete -c backchannel -n '__backchannel_at send any' -l ttl -x -d 'let it expire if nobody took it within S seconds'
complete -c backchannel -n '__backchannel_at send any' -l priority -x -a 'urgent normal low' -d 'urgent, normal or low'
complete -c backchannel -n '__backchannel_at send any' -l durability -x -a 'process power' -d 'process (survives every kill) or power (survives a power cut)'
complete -c backchannel -n '__backchannel_at send any' -l key -x -d 'idempotency key: the same key and text again is stored once'
complete -c backchannel -n '__backchannel_at send any' -l header -x -d 'a header; may be repeated'
complete -c backchannel -n '__backchannel_at send any' -l reply-to -x -d 'the message this one answers'
complete -c backchannel -n '__backchannel_at send any' -l json -d 'one receipt as JSON a line'
complete -c backchannel -n '__backchannel_at send any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at send 0' -a '(__backchannel_targets)'
complete -c backchannel -n '__backchannel_at recv any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at recv any' -l wait -x -d 'wait up to S seconds for the first; exit code 4 if nothing came'
complete -c backchannel -n '__backchannel_at recv any' -l max -x -d 'at most N messages (default: all that wait)'
complete -c backchannel -n '__backchannel_at recv any' -l keep -d 'lease only, for 300 s: ack, reject or release later'
complete -c backchannel -n '__backchannel_at recv any' -l kind -x -a 'message bounce loop data finished offer accepted rejected reset' -d 'only this kind; may be repeated'
complete -c backchannel -n '__backchannel_at recv any' -l session -x -d 'only of this session'
complete -c backchannel -n '__backchannel_at recv any' -l json -d 'one message as JSON a line'
complete -c backchannel -n '__backchannel_at recv any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at hook any' -l as -x -a '(__backchannel_agents)' -d 'the agent of the directory; a second window of it is NAME-2'
complete -c backchannel -n '__backchannel_at hook any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at hook 0' -a 'claude codex gemini'
complete -c backchannel -n '__backchannel_at hook 1' -a 'session-start prompt tool stop session-end wait'
complete -c backchannel -n '__backchannel_at up any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at up any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at up any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at down any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at down any' -l all -d 'all of this user\'s agents'
complete -c backchannel -n '__backchannel_at down any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at down any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at remove any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at remove any' -l purge -d 'even if mail waits: it is lost'
complete -c backchannel -n '__backchannel_at remove any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at remove 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at pause any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at pause any' -l all -d 'all of this user\'s agents'
complete -c backchannel -n '__backchannel_at pause any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at pause any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at resume any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at resume any' -l all -d 'all of this user\'s agents'
complete -c backchannel -n '__backchannel_at resume any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at resume any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at ask any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at ask any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at ask any' -l timeout -x -d 'seconds (default: 60)'
complete -c backchannel -n '__backchannel_at ask any' -l key -x -d 'idempotency key of the question'
complete -c backchannel -n '__backchannel_at ask any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at ask 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at reply any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at reply any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at reply any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at reply any' -l delivery -x -d 'refuse if it was handed out again since (default: the current)'
complete -c backchannel -n '__backchannel_at reply any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at ack any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at ack any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at ack any' -l delivery -x -d 'refuse if it was handed out again since (default: the current)'
complete -c backchannel -n '__backchannel_at ack any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at ack any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at reject any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at reject any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at reject any' -l delivery -x -d 'refuse if it was handed out again since (default: the current)'
complete -c backchannel -n '__backchannel_at reject any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at reject any' -l reason -x -d 'what the sender is told'
complete -c backchannel -n '__backchannel_at reject any' -l retry-after -x -d 'of an offer: ask again in S seconds'
complete -c backchannel -n '__backchannel_at reject any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at release any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at release any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at release any' -l delivery -x -d 'refuse if it was handed out again since (default: the current)'
complete -c backchannel -n '__backchannel_at release any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at release any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at status any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at status any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at status any' -l to -x -a '(__backchannel_agents)' -d 'whose mailbox; without it all are asked'
complete -c backchannel -n '__backchannel_at status any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at status any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at cancel any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at cancel any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at cancel any' -l to -x -a '(__backchannel_agents)' -d 'whose mailbox; without it all are asked'
complete -c backchannel -n '__backchannel_at cancel any' -l from -x -a '(__backchannel_agents)' -d 'whose message, if several senders used this id'
complete -c backchannel -n '__backchannel_at cancel any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at peek any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at peek any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at peek any' -l max -x -d 'at most N (default: 1000); of a log the last'
complete -c backchannel -n '__backchannel_at peek any' -l text -d 'with the texts'
complete -c backchannel -n '__backchannel_at peek any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at log any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at log any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at log any' -l peer -x -a '(__backchannel_agents)' -d 'only from this sender'
complete -c backchannel -n '__backchannel_at log any' -l kind -x -d 'only this kind: message, bounce, loop, offer, data, ...'
complete -c backchannel -n '__backchannel_at log any' -l stage -x -a 'stored taken acked done rejected expired cancelled dead' -d 'only what is in this stage now'
complete -c backchannel -n '__backchannel_at log any' -l session -x -d 'only of this session'
complete -c backchannel -n '__backchannel_at log any' -l trace -x -d 'only of this trace: a message and what came of it'
complete -c backchannel -n '__backchannel_at log any' -l since -x -d 'from then on: 10m, 2h, 3d ago, or 2026-01-31T12:00'
complete -c backchannel -n '__backchannel_at log any' -l until -x -d 'before then'
complete -c backchannel -n '__backchannel_at log any' -l follow -d 'go on as things happen'
complete -c backchannel -n '__backchannel_at log any' -l max -x -d 'at most N (default: 1000); of a log the last'
complete -c backchannel -n '__backchannel_at log any' -l text -d 'with the texts'
complete -c backchannel -n '__backchannel_at log any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at log any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at tap any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at tap any' -l text -d 'with the texts'
complete -c backchannel -n '__backchannel_at tap any' -l for -x -d 'end after S seconds'
complete -c backchannel -n '__backchannel_at tap any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at tap any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at config any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at config any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at config any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at config 0' -a 'show'
complete -c backchannel -n '__backchannel_at open any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at open any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at open any' -l wait -x -d 'withdraw the offer after S seconds and exit with 4 (default: 300); 0: do not wait, print the id at once'
complete -c backchannel -n '__backchannel_at open any' -l max-messages -x -d 'end it after N texts, both directions together'
complete -c backchannel -n '__backchannel_at open any' -l max-bytes -x -d 'end it after N bytes of text'
complete -c backchannel -n '__backchannel_at open any' -l deadline -x -d 'end it after S seconds'
complete -c backchannel -n '__backchannel_at open any' -l idle-timeout -x -d 'end it after S seconds without a text'
complete -c backchannel -n '__backchannel_at open any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at open 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at accept any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at accept any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at accept any' -l max-messages -x -d 'end it after N texts, both directions together'
complete -c backchannel -n '__backchannel_at accept any' -l max-bytes -x -d 'end it after N bytes of text'
complete -c backchannel -n '__backchannel_at accept any' -l deadline -x -d 'end it after S seconds'
complete -c backchannel -n '__backchannel_at accept any' -l idle-timeout -x -d 'end it after S seconds without a text'
complete -c backchannel -n '__backchannel_at accept any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at say any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at say any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at say any' -l timeout -x -d 'how long to wait for room in the window (default: 60)'
complete -c backchannel -n '__backchannel_at say any' -l input-required -d 'you cannot go on without an answer'
complete -c backchannel -n '__backchannel_at say any' -l key -x -d 'idempotency key: the same key and text again is said once'
complete -c backchannel -n '__backchannel_at say any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at close any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at close any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at close any' -l result -x -d 'the result, or -: standard input'
complete -c backchannel -n '__backchannel_at close any' -l failed -d 'the task was not done'
complete -c backchannel -n '__backchannel_at close any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at abort any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at abort any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at abort any' -l reason -x -d 'what the peer is told'
complete -c backchannel -n '__backchannel_at abort any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at progress any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at progress any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at progress any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at sessions any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at sessions any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at sessions any' -l open -d 'only those that are not CLOSED'
complete -c backchannel -n '__backchannel_at sessions any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at trace any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at trace any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at trace any' -l text -d 'with the texts'
complete -c backchannel -n '__backchannel_at trace any' -l kind -x -a 'SYN SYN-ACK REJ DATA FIN RST' -d 'of a session: only these frames'
complete -c backchannel -n '__backchannel_at trace any' -l since -x -d 'of a session: from then on (10m, 2h, 3d ago, or a time)'
complete -c backchannel -n '__backchannel_at trace any' -l until -x -d 'of a session: before then'
complete -c backchannel -n '__backchannel_at trace any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at export any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at export any' -l format -x -a 'md jsonl mermaid' -d 'Markdown, JSON a line, or a Mermaid diagram'
complete -c backchannel -n '__backchannel_at export any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at chat any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at chat any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at chat any' -l wait -x -d 'for the peer to accept (default: 300)'
complete -c backchannel -n '__backchannel_at chat any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at chat 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at serve any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at serve any' -l max -x -d 'run N at once; further tasks wait (default: 1)'
complete -c backchannel -n '__backchannel_at serve any' -l exec -x -d 'the program and its arguments: the rest of the line'
complete -c backchannel -n '__backchannel_at serve any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at serve 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at init any' -l agent -x -a '(__backchannel_agents)' -d 'the agent\'s name (default: the directory\'s, or the profile\'s)'
complete -c backchannel -n '__backchannel_at init any' -l dir -x -d 'the directory (default: this one; not of hermes)'
complete -c backchannel -n '__backchannel_at init any' -l profile -x -a '(__backchannel_agents)' -d 'of hermes (default: its default profile)'
complete -c backchannel -n '__backchannel_at init any' -l hermes -x -d 'the hermes command (default: found on the PATH)'
complete -c backchannel -n '__backchannel_at init any' -l wake -d 'refuse a program that cannot be woken when idle'
complete -c backchannel -n '__backchannel_at init any' -l dry-run -d 'only show what it would change'
complete -c backchannel -n '__backchannel_at init any' -l yes -d 'do not ask'
complete -c backchannel -n '__backchannel_at init any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at init 0' -a 'claude codex gemini hermes mcp'
complete -c backchannel -n '__backchannel_at init 1' -a 'claude codex gemini'
complete -c backchannel -n '__backchannel_at uninit any' -l agent -x -a '(__backchannel_agents)' -d 'the agent\'s name (default: the directory\'s, or the profile\'s)'
complete -c backchannel -n '__backchannel_at uninit any' -l dir -x -d 'the directory (default: this one; not of hermes)'
complete -c backchannel -n '__backchannel_at uninit any' -l profile -x -a '(__backchannel_agents)' -d 'of hermes (default: its default profile)'
complete -c backchannel -n '__backchannel_at uninit any' -l hermes -x -d 'the hermes command (default: found on the PATH)'
complete -c backchannel -n '__backchannel_at uninit any' -l dry-run -d 'only show what it would change'
complete -c backchannel -n '__backchannel_at uninit any' -l yes -d 'do not ask'
complete -c backchannel -n '__backchannel_at uninit any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at uninit 0' -a 'claude codex gemini hermes mcp'
complete -c backchannel -n '__backchannel_at uninit 1' -a 'claude codex gemini'
complete -c backchannel -n '__backchannel_at service any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at service any' -l system -d 'of the machine, with a uid for each agent (root)'
complete -c backchannel -n '__backchannel_at service any' -l dry-run -d 'only show what it would write and run'
complete -c backchannel -n '__backchannel_at service any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at service 0' -a 'install uninstall status'
complete -c backchannel -n '__backchannel_at service any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at mcp any' -l as -x -a '(__backchannel_agents)' -d 'be this agent (default: BACKCHANNEL_AGENT)'
complete -c backchannel -n '__backchannel_at mcp any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at agents any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at agents any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at audit any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at audit any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at audit any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at metrics any' -l textfile -x -d 'write it there, whole or not at all, for node_exporter'
complete -c backchannel -n '__backchannel_at metrics any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at metrics any' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at backup any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at backup any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at backup 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at restore any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at restore any' -l stop -d 'stop the agent\'s daemon for it, and start it again'
complete -c backchannel -n '__backchannel_at restore any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at restore 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at purge any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at purge any' -l older-than -x -d 'that ended so long ago: 30d, 12h, 0 (default: 30d)'
complete -c backchannel -n '__backchannel_at purge any' -l keep -x -d 'but nothing of the last N messages'
complete -c backchannel -n '__backchannel_at purge any' -l dry-run -d 'only count'
complete -c backchannel -n '__backchannel_at purge any' -l list -d 'instead: what left before, and why'
complete -c backchannel -n '__backchannel_at purge any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at purge 0' -a '(__backchannel_agents)'
complete -c backchannel -n '__backchannel_at doctor any' -l json -d 'one JSON object a line'
complete -c backchannel -n '__backchannel_at doctor any' -l help -d 'Show help and exit.'
complete -c backchannel -n '__backchannel_at demo any' -l help -d 'Show help and exit.'
