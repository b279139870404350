# docker build --file service/fit.Dockerfile --tag recvae-fit .
# The command line with all that fits models, for the nightly job; the service's image is without torch and pandas.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY recvae recvae
# torch without CUDA, which is most of its size.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt \
    '.[baselines,report,service]'

FROM python:3.11-slim
# implicit's extensions use OpenMP.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin recvae
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001
ENTRYPOINT ["recvae"]
