# One image for every process: `docker build -t ekko-kafka .`, then `docker run ekko-kafka store --help`.
# Layers from what changes least to what changes most; the final image holds no compiler, no cache and no sources.
FROM python:3.11-slim AS build
ENV EKKO_HOME=/opt/ekko
ENV EKKO_CACHE=$EKKO_HOME/cache PATH=$EKKO_HOME/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

COPY requirements/build.txt requirements/monitor.txt requirements/
RUN python -m venv $EKKO_HOME/venv && pip install -q --require-hashes --only-binary :all: -r requirements/monitor.txt
RUN python -m venv tools && tools/bin/pip install -q --require-hashes --only-binary :all: -r requirements/build.txt

# Apache Kafka and its Java: only what fetches them, so that a change elsewhere does not fetch them again.
COPY schemas/__init__.py schemas/errors.py broker/ekko/schemas/
COPY ops/__init__.py ops/watcher.py broker/ekko/ops/
COPY ops/broker broker/ekko/ops/broker
RUN cd broker && python -c "from ekko.ops.broker.prepare import prepare; prepare(print)"

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY storage storage
COPY streams streams
COPY ops ops
RUN tools/bin/pip wheel -q --no-deps --no-build-isolation -w dist . && pip install -q --no-deps dist/*.whl

FROM python:3.11-slim
ENV EKKO_HOME=/opt/ekko EKKO_DATA=/data HOME=/data PYTHONUNBUFFERED=1
ENV EKKO_CACHE=$EKKO_HOME/cache PATH=$EKKO_HOME/venv/bin:$PATH
COPY --from=build $EKKO_HOME $EKKO_HOME
# Whoever the container runs as may write to its volume; a named volume takes these rights over.
RUN install -d -m 1777 $EKKO_DATA
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["ekko"]
CMD ["--help"]
