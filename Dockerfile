# build → base → api, worker.
# torch's build: without TORCH_INDEX pip takes the CUDA build that PyPI has for
# Linux; for the CPU build give the index that pytorch.org names for it:
#   docker build --target api --build-arg TORCH_INDEX=… .
FROM python:3.11-slim AS build

ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

RUN PIP_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir torch==2.13.0

# The dependencies alone, so that a change of the code does not fetch them again.
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['cpu'], \
*p['optional-dependencies']['s3'], sep='\n')" > /tmp/requirements.txt \
    && pip install --no-cache-dir -r /tmp/requirements.txt

COPY . .
RUN pip install --no-cache-dir --no-deps .


FROM python:3.11-slim AS base

RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin normbank \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NORMBANK_DATA_DIR=/data

USER 10001:10001
WORKDIR /data
VOLUME /data


FROM base AS worker

# SIGTERM lets a short job end and hands a long one back to the queue.
ENV REMAP_SIGTERM=SIGQUIT
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "celery --app=worker.main:celery inspect ping --destination=celery@$(hostname)"]
CMD ["celery", "--app=worker.main:celery", "worker", "--pool=prefork", "--concurrency=1", \
     "--queues=segment,pacs,adapt", "--loglevel=INFO"]


FROM base AS api

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["uvicorn", "app.server:create_app", "--factory", "--host=0.0.0.0", "--port=8000", \
     "--http=app.http.connections:HttpConnection", "--no-server-header", \
     "--timeout-graceful-shutdown=30"]
