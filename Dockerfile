# The BIDS app: docker run … neuromm encode /bids /out participant --features …
# tests/packaging/test_dockerfile.py holds the steps below to those of the Makefile.
FROM python:3.11-slim

WORKDIR /opt/neuromm
COPY pyproject.toml README.md LICENSE ./
COPY constraints constraints
COPY neuromm neuromm
COPY pipelines pipelines
COPY atlases atlases
COPY cuda cuda

RUN python -m pip install --quiet --upgrade "pip>=25.1"
RUN python -m pip install --quiet -c constraints/py311.txt .

# Any user may run it: matplotlib and MNE want a folder to write to.
ENV HOME=/tmp
WORKDIR /tmp
ENTRYPOINT ["neuromm"]
