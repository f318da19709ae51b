"""Who a vehicle is, and how its packets are marked."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from pathlib import Path

import grpc
import pytest

from edge.command import main as roadfuse
from edge.errors import UplinkError
from edge.uplink import identity as identities
from edge.uplink.identity import channel, enrol, vehicle_of
from roadfuse.v1 import ingest_pb2 as wire
from roadfuse.v1.ingest_pb2_grpc import IngestStub

from .ingest_server import Cloud, serve


def marks(port: int, stop: threading.Event, found: set[int]) -> None:
    """DSCP of the packets with content that go to a port on this machine."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as raw:
        raw.settimeout(0.2)
        while not stop.is_set():
            try:
                packet = raw.recv(65_535)[14:]
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            to_port = struct.unpack_from(">H", packet, header + 2)[0]
            if packet[9] == socket.IPPROTO_TCP and to_port == port:
                found.add(packet[1] >> 2)


def test_packets_ask_for_the_networks_background_class() -> None:
    server, address = serve(Cloud())
    stop, found = threading.Event(), set[int]()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)).close()
    except PermissionError:
        pytest.skip("this user may not look at packets")
    watcher = threading.Thread(target=marks, args=(int(address.rpartition(":")[2]), stop, found))
    watcher.start()
    with grpc.insecure_channel(address, options=identities._options(None)) as link:
        IngestStub(link).Account(wire.AccountRequest(), timeout=20)
        IngestStub(link).Account(wire.AccountRequest(), timeout=20)
    stop.set()
    watcher.join()
    server.stop(None)
    assert 1 in found, f"expected packets of DSCP 1 (lower effort), got {sorted(found)}"


def test_a_folder_without_an_identity_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UplinkError, match="enrol the vehicle first"):
        channel("localhost:1", tmp_path)
    with pytest.raises(UplinkError, match="enrol the vehicle first"):
        vehicle_of(tmp_path)
    (tmp_path / identities.CERTIFICATE).write_bytes(b"no certificate")
    with pytest.raises(UplinkError, match="expected a certificate"):
        vehicle_of(tmp_path)
    assert roadfuse(["uplink", "run", "--spool", str(tmp_path), "--cloud", "x:1", "--identity", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / identities.KEY).write_bytes(b"secret")
    with pytest.raises(UplinkError, match="expected no identity"):
        enrol("localhost:1", tmp_path, "car-7", "token", tmp_path / "ca.pem")
    assert (tmp_path / identities.KEY).read_bytes() == b"secret"


def test_a_cloud_that_is_not_there_enrols_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    with pytest.raises(UplinkError, match=r"not enrolled: ") as raised:
        enrol("127.0.0.1:1", tmp_path / "identity", "car-7", "token", ca)
    assert "\n" not in str(raised.value) and not (tmp_path / "identity").exists()


def test_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        identities._write(tmp_path / "key.pem", b"secret")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
