# Read by faults.sh, mixed.sh, failover.sh, python_cluster.sh and benches/load/bench.sh after setup.sh: runs the Python
# scenarios, which start nodes themselves.

OUR_LIBRARY_PATH=$LIBRARY_PATH
C_LIBRARY_PATH=${PEER_LIBRARY:-$(debian_library_path)}
MEMBER=$WORK/member
export OUR_LIBRARY_PATH C_LIBRARY_PATH MEMBER
cc -std=gnu99 -Wall -Wextra -Wno-address -Iinclude -o "$MEMBER" c-tests/member.c "$STAGE/lib/libdqlite.so.0"

# scenario SECONDS PROGRAM ARGUMENTS...: its nodes do not outlive it, whatever ends it. With ENTER, a command that runs
# others in surroundings of their own, it runs there.
scenario() {
    seconds=$1
    program=$2
    shift 2
    status=0
    # In the background, or the shell would hear of signals only at its end; timeout ends all when the script is gone.
    # ENTER is several words.
    # shellcheck disable=SC2086
    PYTHONDONTWRITEBYTECODE=1 setsid setpriv --pdeathsig TERM timeout -k 5 "$seconds" ${ENTER:-} \
        "${PYTHON:-python3}" "tests/dropin/$program.py" "$@" &
    wait $! || status=$?
    if [ "$status" -ne 0 ]; then
        for log in $(find "$WORK" -name 'node*.log' -size +0); do
            echo "--- last lines of $log" >&2
            grep -v '^LIBRAFT ' "$log" | tail -n 10 >&2
        done
        fail "$program $*: exit code $status"
    fi
}
