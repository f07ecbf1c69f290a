# The server as an image: docs/deploy/container.md shows how to build and run it.

# The compiler for our own products stays in this stage.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++
RUN python -m venv /opt/voxrill
ENV PATH=/opt/voxrill/bin:$PATH
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir ".[serve]" && python -m kernels.build

FROM python:3.13-slim
COPY --from=build /opt/voxrill /opt/voxrill
ENV PATH=/opt/voxrill/bin:$PATH
RUN useradd --create-home --uid 1000 voxrill && install --directory --owner=voxrill /home/voxrill/.cache
# As a number, so that Kubernetes sees that it is not root.
USER 1000
WORKDIR /home/voxrill
EXPOSE 8000
ENTRYPOINT ["voxrill"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--api-key-file", "/run/secrets/key"]
