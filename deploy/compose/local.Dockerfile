# Stand-ins for images that come from elsewhere, for machines without a way to them: the same
# programs from Debian and PyPI. See local.yaml.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS postgres
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/compose/local-postgres.sh /usr/local/bin/start
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
USER postgres
CMD ["sh", "/usr/local/bin/start"]

FROM ${BASE} AS nginx
RUN apt-get update && apt-get install --yes --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/*
CMD ["nginx", "-g", "daemon off;"]

FROM ${BASE} AS redis
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/*
CMD ["redis-server"]

FROM ${BASE} AS synapse
RUN apt-get update && apt-get install --yes --no-install-recommends \
        ca-certificates python3 python3-psycopg2 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/embedded.txt requirements/workers.txt /tmp/
RUN python3 -m venv --system-site-packages /opt/synapse \
    && /opt/synapse/bin/pip install --no-cache-dir --require-hashes \
        -r /tmp/embedded.txt -r /tmp/workers.txt
ENV PATH=/opt/synapse/bin:$PATH
# The published image is told `run` and Python's own arguments, too.
ENTRYPOINT ["sh", "-c", "shift; exec python3 \"$@\"", "synapse"]
CMD ["run", "-m", "synapse.app.homeserver", "--config-path", "/data/homeserver.yaml"]
