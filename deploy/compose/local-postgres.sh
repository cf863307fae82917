# As much of the official image's start as compose.yaml relies on.
set -eu
data=/var/lib/postgresql/data
if [ ! -e "$data/PG_VERSION" ]; then
    # shellcheck disable=SC2086
    initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" \
        --auth-local scram-sha-256 --auth-host scram-sha-256 $POSTGRES_INITDB_ARGS
fi
postgres -D "$data" -c listen_addresses= -c unix_socket_directories=/tmp &
first=$!
until pg_isready --quiet --host /tmp; do sleep 0.2; done
PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") psql --host /tmp --username "$POSTGRES_USER" postgres \
    --command "CREATE DATABASE $POSTGRES_DB" 2>/dev/null || :
kill "$first"
wait "$first" || :
exec postgres -D "$data" -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp
