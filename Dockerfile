# The policy as machine code: making it needs a compiler, running it does not.
FROM python:3.12 AS compiled
WORKDIR /app
COPY requirements.lock compile_policy.py ./
RUN pip install --no-cache-dir setuptools $(grep -E '^mypy(_extensions)?==' requirements.lock)
COPY mesh mesh
COPY policy policy
RUN python compile_policy.py

# One image, four services: docker compose chooses which by its command.
FROM python:3.12-slim

WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.lock)" \
 && pip install --no-cache-dir -r requirements.lock

COPY pyproject.toml hatch_build.py compile_policy.py README.md LICENSE ./
COPY protos protos
COPY mesh mesh
COPY policy policy
COPY --from=compiled /app/build build
COPY services services
COPY cli cli
COPY demo demo
RUN pip install --no-cache-dir --no-build-isolation --no-deps . \
 && useradd --create-home --uid 10001 whimbrel \
 && install -d -o whimbrel /var/lib/whimbrel /run/whimbrel
USER whimbrel

# Torch threads that spin for each other on busy cores make small models many times slower.
ENV WHIMBREL_HOST=0.0.0.0 OMP_WAIT_POLICY=PASSIVE GRPC_ENABLE_FORK_SUPPORT=0
ENTRYPOINT ["python", "-m"]
CMD ["services.gateway"]
