# Keepmap in a container: an ordinary user, one port, one volume, no secret, no network at run time.
#
#   docker build -t keepmap .
#   docker run -p 7860:7860 -v keepmap:/data keepmap
#
# tests/test_packaging.py performs these steps without a container engine; keep them as plain as it reads them.

# 3.14 has a standard-library package named `compression`, which ours would shadow.
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim

# PyTorch's own index of CPU builds. For a GPU, build with --build-arg TORCH_INDEX= (empty) and run with --gpus all.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# rasterio's wheels bring GDAL, but not libexpat.
RUN apt-get update && apt-get install --yes --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*

# uid 1000, because some hosts start every container as it; HOME, because libraries keep small files there.
RUN useradd --uid 1000 --create-home keepmap && mkdir /data && chown keepmap:keepmap /data
ENV HOME=/home/keepmap PYTHONUNBUFFERED=1

WORKDIR /opt/keepmap

# Dependencies before source, so that a change of the source does not fetch them again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /tmp/requirements.txt && pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} --requirement /tmp/requirements.txt

COPY README.md LICENSE ./
COPY compression ./compression
COPY analysis ./analysis
COPY pid ./pid
COPY storage ./storage
COPY dashboard ./dashboard
RUN pip install --no-cache-dir --no-deps .

# Run from /data: the default store lies in the working directory, and the sources above are no longer needed.
USER 1000
WORKDIR /data
ENV KEEPMAP_HOST=0.0.0.0 KEEPMAP_PORT=7860 KEEPMAP_DB=sqlite:////data/keepmap.db HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('KEEPMAP_PORT', '7860') + '/health', timeout=4)"]
CMD ["keepmap", "serve"]
