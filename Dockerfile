# letta-matrix as a container. `docker build .` makes the bridge; --target app-server makes Letta's
# App Server, with the same code around it (its model, its first agents, its confinement).
#
# BASE needs apt and Python >= 3.11. Packages come with the hashes of requirements/*.txt.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/letta-matrix/bin:$PATH PYTHONUNBUFFERED=1

FROM python AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/letta-matrix && python3 -m venv /opt/build
WORKDIR /source
COPY requirements requirements
# `postgres otel` has what traces need besides.
ARG REQUIREMENTS=postgres
# Kept compiled is what the bridge imports: the rest would be a third of the image.
RUN pip install --no-cache-dir --no-compile --require-hashes \
        $(printf -- "-r requirements/%s.txt " ${REQUIREMENTS}) \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip install --no-cache-dir --no-compile --no-deps /wheels/*.whl

FROM build AS build-bridge
RUN python3 -c "import letta_matrix.app.bridge, letta_matrix.app.exposition, letta_matrix.cli.commands, \
letta_matrix.doors.mcp.http, letta_matrix.doors.rest.app, letta_matrix.runtimes.app_server.adapter, \
letta_matrix.runtimes.letta_api.adapter, letta_matrix.runtimes.openai_compatible.adapter" \
    && python3 -m compileall -q /opt/letta-matrix/lib/python3*/site-packages/letta_matrix \
    && pip uninstall --yes pip setuptools
# Symbols for debuggers, sources of compiled parts and tests of packages are a tenth of the image.
RUN cd /opt/letta-matrix/lib \
    && find . -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && find . -name '*.[ch]' -delete -o -name '*.pyx' -delete -o -name '*.pxd' -delete \
    && find . -path '*/site-packages/*/tests' -prune -exec rm -rf {} + \
    && python3 -c "import letta_matrix.app.bridge, PIL._imaging, PIL._avif, PIL._webp, \
psycopg, cryptography.hazmat.bindings._rust"

FROM build AS build-app-server
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/app-server.txt \
    && pip uninstall --yes pip setuptools

# Agents run tools in here: git and the usual programs are among them.
FROM python AS app-server
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10002 --create-home --home-dir /data app-server
COPY --from=build-app-server /opt/letta-matrix /opt/letta-matrix
USER app-server
VOLUME /data
EXPOSE 4500
HEALTHCHECK --start-period=2m --interval=30s --timeout=5s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4500/readyz', timeout=4)"]
CMD ["python3", "-m", "letta_matrix.stack.agents_alone", "/data"]

FROM python AS bridge
RUN useradd --uid 10001 --create-home --home-dir /data letta-matrix
COPY --from=build-bridge /opt/letta-matrix /opt/letta-matrix
USER letta-matrix
WORKDIR /data
VOLUME /data
EXPOSE 8004 8015 8016 29377
HEALTHCHECK --start-period=2m --interval=30s --timeout=5s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8004/health', timeout=4)"]
ENTRYPOINT ["letta-matrix"]
CMD ["run", "-c", "/data/config.yaml"]
