# The image of every M Desk process: `m web`, `m worker`, `m db upgrade`.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
WORKDIR /src
COPY requirements.lock ./
RUN /venv/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY webapp webapp
COPY worker worker
COPY templates templates
COPY static static
RUN /venv/bin/pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home desk
COPY --from=build /venv /venv
# Your job modules go to /app: COPY them in an image of your own (FROM this one), or mount them there.
ENV PATH="/venv/bin:$PATH" PYTHONPATH=/app PYTHONUNBUFFERED=1 M_HOME=/data M_HOST=0.0.0.0
WORKDIR /app
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["m"]
CMD ["web"]
