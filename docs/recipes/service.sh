#!/usr/bin/env bash
# An agent in bash: answers each message with what a command says of it. Needs jq.
#
#     BACKCHANNEL_AGENT=counter ./service.sh wc -w
set -euo pipefail
backchannel up "${BACKCHANNEL_AGENT:?who are you}" >/dev/null

while true; do
    # Leased, not acked: if this script dies, the message is handed out again after five minutes.
    mail=$(backchannel recv --kind message --keep --json --max 1 --wait 3600) || {
        (($? == 4)) && continue # an hour without mail
        exit 1
    }
    id=$(jq -r .id <<<"$mail")
    if answer=$(jq -j .text <<<"$mail" | "$@" 2>&1); then
        backchannel reply -- "$id" "$answer" >/dev/null
    else
        answer=${answer:0:900}
        backchannel reject --reason="${answer:-failed without a word}" -- "$id" >/dev/null
    fi
done
