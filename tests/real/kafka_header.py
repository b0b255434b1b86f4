"""A record with a header as no Python client would write it: its name is bytes, which are not UTF-8."""

import ctypes
from pathlib import Path

import confluent_kafka

_PRODUCER = 0  # rd_kafka_type_t
_TOPIC, _VALUE, _KEY, _HEADERS, _END = 1, 4, 5, 10, 0  # rd_kafka_vtype_t
_WITHIN_MS = 60_000


def produce_with_header(brokers: str, topic: str, record: bytes, name: bytes, value: bytes) -> None:
    """Produce a record, which is its own key, with one header; by the C library that our client brings along."""
    (library,) = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka-*.so*")
    kafka = ctypes.CDLL(str(library))
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(kafka, function).restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    for setting in ((b"bootstrap.servers", brokers.encode()), (b"log_level", b"0")):
        assert kafka.rd_kafka_conf_set(settings, *setting, said, len(said)) == 0, said.value
    producer = ctypes.c_void_p(kafka.rd_kafka_new(_PRODUCER, settings, said, len(said)))
    headers = ctypes.c_void_p(kafka.rd_kafka_headers_new(ctypes.c_size_t(1)))
    size, length = ctypes.c_ssize_t, ctypes.c_size_t(len(record))
    assert kafka.rd_kafka_header_add(headers, name, size(len(name)), value, size(len(value))) == 0
    parts = (_TOPIC, topic.encode(), _VALUE, record, length, _KEY, record, length, _HEADERS, headers, _END)
    assert kafka.rd_kafka_producev(producer, *parts) == 0
    assert kafka.rd_kafka_flush(producer, _WITHIN_MS) == 0
    kafka.rd_kafka_destroy(producer)
