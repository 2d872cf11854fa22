#!/bin/sh
# Puts damaged queue files aside, so that the Collector starts: with one it ends at once, and your own telemetry with it.
# Before a start it looks at the beginning of each file; after a crash of the Collector (status 2) it takes all of them.
#   queue-check.sh DIRECTORY [EXIT_STATUS]
page=$(getconf PAGESIZE)
for file in "$1"/exporter_*; do
    case $file in *.backup) continue ;; esac
    [ -s "$file" ] || continue
    damaged=yes
    for start in 0 "$page"; do # bbolt has two copies of its header, and needs one
        [ "$(od -An -tx1 -j $((start + 16)) -N 4 "$file" 2>/dev/null | tr -d ' \n')" = edda0ced ] && damaged=no
    done
    [ "$(wc -c < "$file")" -lt $((4 * page)) ] && damaged=yes
    [ "${2:-0}" = 2 ] && damaged=yes
    if [ $damaged = yes ]; then
        echo "queue-check: $file is put aside as *.backup; what waited in it is lost" >&2
        mv "$file" "$file.$(date -u +%Y%m%dT%H%M%SZ).backup"
    fi
done
exit 0
