"""Signatures of devices, of the network between them and of the host: NPU, HCCL, CANN, ports, memory."""

from __future__ import annotations

import re

from qwen3_ops.mindspeed.diagnosis.signature import Fault, Signature

_OTHERS = 8.0  # GiB; an idle device holds about 3, HCCL's buffers some more
_MEMORY_REMEDY = (
    "Loading a 14B model for conversion takes up to 150 GB; start fewer ranks or data workers at once, or use another host; "
    "`dmesg` on the host names the process."
)
_PORT_REMEDY = (
    "Wait until the older job has ended, or give this one its own --master_port and HCCL_IF_BASE_PORT, outside each other's ranges; "
    "keep them out of the ephemeral range with net.ipv4.ip_local_reserved_ports."
)

_GIB = {"GiB": 1.0, "MiB": 1 / 1024, "KiB": 1 / 1024**2, "bytes": 1 / 1024**3}
_SIZES = re.compile(
    r"(\d{1,12}(?:\.\d{1,6})?) (GiB|MiB|KiB|bytes) (total capacity|already allocated|free|reserved)|allocate (\d{1,12}(?:\.\d{1,6})?) "
    r"(GiB|MiB|KiB|bytes)"
)


def _held_by_another(line: str) -> bool:
    """Whether the memory that is neither free nor this process's own is more than the driver and the libraries take."""
    sizes = {(name or "wanted"): float(n or w) * _GIB[unit or wanted_unit] for n, unit, name, w, wanted_unit in _SIZES.findall(line)}
    if not {"total capacity", "free"} <= sizes.keys():
        return False
    own = max(sizes.get("reserved", 0.0), sizes.get("already allocated", 0.0))
    return sizes["total capacity"] - sizes["free"] - own > _OTHERS


SIGNATURES: tuple[Signature, ...] = (
    Signature(
        name="npu-memory-taken",
        needles=("NPU out of memory",),
        when=_held_by_another,
        cause="another process holds the device's memory",
        remedy="Look for it with `npu-smi info` on the host; end it, wait ten seconds, start again.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.97 GiB total capacity; 5.20 GiB already "
        "allocated; 5.20 GiB current active; 0.41 GiB free; 5.55 GiB reserved in total by PyTorch)",
    ),
    Signature(
        name="npu-out-of-memory",
        needles=("NPU out of memory",),
        cause="a device's memory does not hold the model, its optimizer and its activations",
        remedy="Lower --micro-batch-size or --seq-length, raise TP or PP, recompute activations, use --use-distributed-optimizer with data "
        "parallelism, set PYTORCH_NPU_ALLOC_CONF=expandable_segments:True.",
        fault=Fault.BAD_INPUT,
        example="[rank3]: RuntimeError: NPU out of memory. Tried to allocate 2.32 GiB (NPU 3; 60.97 GiB total capacity; 57.10 GiB already "
        "allocated; 57.10 GiB current active; 1.20 GiB free; 58.55 GiB reserved in total by PyTorch) If reserved memory is >> allocated "
        "memory try setting max_split_size_mb to avoid fragmentation.",
    ),
    Signature(
        name="virtual-memory-unsupported",
        needles=("507001",),
        pattern=re.compile(r"expandable_segments"),
        cause="the driver is too old for expandable segments",
        remedy="Set PYTORCH_NPU_ALLOC_CONF=expandable_segments:False, or update the driver.",
        fault=Fault.BAD_INPUT,
        example="RuntimeError: aclrtReserveMemAddress failed, error code is 507001; expandable_segments:True needs a newer driver",
    ),
    Signature(
        name="hccl-socket-timeout",
        needles=("EI0006",),
        cause="a rank waited in vain for another one's connection: that one is late or dead, the network is cut, or TLS settings differ",
        remedy="Look for an earlier error on the other ranks and nodes; raise HCCL_CONNECT_TIMEOUT; name the right interface in "
        "HCCL_SOCKET_IFNAME; `hccn_tool -i N -tls -g` must say the same on all devices, `hccn_tool -i N -link -g` UP.",
        fault=Fault.INFRASTRUCTURE,
        waits=True,
        example="[rank0]: EI0006: [PID: 4711] 2026-11-24-10:30:00.123.456 Getting socket times out. Reason: Remote Rank did not send the "
        "data in time. Please check the reason for the rank being stuck",
    ),
    Signature(
        name="hccl-notify-timeout",
        needles=("EI0002",),
        cause="a rank waited in vain inside a collective operation: another one died or is far slower",
        remedy="Look for the first error on the rank that is named and on the others; look for uneven data and for a bad link; "
        "HCCL_EXEC_TIMEOUT is 1800 s.",
        fault=Fault.INFRASTRUCTURE,
        waits=True,
        example="[rank1]: EI0002: [PID: 4712] 2026-11-24-10:30:00.123.456 The wait execution of the Notify register times out. Reason: The "
        "Notify register has not received the Notify record from remote rank [3].",
    ),
    Signature(
        name="hccl-stale-process",
        needles=("EJ0001",),
        cause="a process of an older job still holds the device",
        remedy="End that job's processes, wait ten seconds, start again.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: EJ0001: [PID: 4711] 2026-11-24-10:00:00.123.456 Failed to initialize the HCCP process. Reason: Maybe the last "
        "training process is running.",
    ),
    Signature(
        name="hccl-port-taken",
        needles=("EJ0003", "EI0019", "EI0020"),
        pattern=re.compile(r"(EJ0003|EI0019|EI0020).*\bport\b|(EJ0003|EI0019|EI0020).*bind|\bbind\b.*\bport\b.*(EJ0003|EI0019|EI0020)"),
        cause="a port that HCCL wants is taken: two processes share a device, or two jobs a port range",
        remedy=_PORT_REMEDY,
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: EJ0003: [PID: 4711] 2026-11-24-10:00:00.123.456 Failed to bind the IP port. Reason: The IP address and port have "
        "been bound already.",
    ),
    Signature(
        name="master-port-taken",
        needles=("ddress already in use",),
        cause="the master port is taken, mostly by an older job",
        remedy=_PORT_REMEDY,
        fault=Fault.INFRASTRUCTURE,
        example="torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 6015, "
        "useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
    ),
    Signature(
        name="rendezvous-timeout",
        needles=("imed out",),
        pattern=re.compile(
            r"(client socket|TCPStore|connect\(\)|rendezvous|RendezvousTimeout|waiting for clients).{0,300}imed out", re.IGNORECASE
        ),
        cause="a node never came to the rendezvous: it did not start, or the master's address or port can not be reached",
        remedy="Start every node within the same minutes; check --master_addr and --master_port from each of them and container "
        "networking.",
        fault=Fault.INFRASTRUCTURE,
        waits=True,
        example="torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to connect to "
        "(10.0.0.1, 6015).",
    ),
    Signature(
        name="no-visible-device",
        needles=("EE1001",),
        cause="ASCEND_RT_VISIBLE_DEVICES names a device that is not there",
        remedy="Its numbers count the container's own devices from 0; --nproc_per_node must not exceed their number.",
        fault=Fault.BAD_INPUT,
        example="EE1001: [PID: 4711] 2026-11-24-10:00:00.123.456 The argument is invalid. Reason: Set visible device failed, invalid "
        "device=8, "
        "input visible devices:0,1,2,8",
    ),
    Signature(
        name="device-in-use",
        needles=("dcmi module initialize failed",),
        pattern=re.compile(r"-8020|device is used"),
        cause="the device is given to another container",
        remedy="Give each container devices of its own; read npu-smi on the host.",
        fault=Fault.INFRASTRUCTURE,
        example="dcmi module initialize failed. ret is -8020, because the device is used by other container",
    ),
    Signature(
        name="device-not-mounted",
        needles=("dcmi module initialize failed",),
        cause="the container lacks a device, or the driver's folders",
        remedy="Mount /dev/davinciN, davinci_manager, devmm_svm, hisi_hdc, /usr/local/dcmi and the driver; or use the Ascend Docker "
        "runtime.",
        fault=Fault.BAD_INPUT,
        example="dcmi module initialize failed. ret is -8005",
    ),
    Signature(
        name="device-lost",
        needles=("ERR00100",),
        pattern=re.compile(r"\b(507\d{3}|207004)\b"),
        cause="a device was lost or is unhealthy",
        remedy="`npu-smi info -t health -i N` on the host; reset or leave out that device; then start again.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank2]: RuntimeError: ACL stream synchronize failed, error code:507018 [ERROR] 2026-11-24-10:00:00 (PID:4713, Device:2, "
        "RankID:2) ERR00100 PTA call acl api failed, error code is 507018",
    ),
    Signature(
        name="device-error-code",
        needles=("error code",),
        pattern=re.compile(r"error code(?: is|:)? ?(507\d{3}|207004)\b"),
        cause="a device was lost or is unhealthy",
        remedy="`npu-smi info -t health -i N` on the host; reset or leave out that device; then start again.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank2]: RuntimeError: synchronize:build/CMakeFiles/torch_npu.dir/NPUStream.cpp:493 NPU function error: "
        "aclrtSynchronizeStream, error code is 507035",
    ),
    Signature(
        name="operator-mismatch",
        needles=("ERR01005", "EZ9999", "error code"),
        pattern=re.compile(r"ERR01005|\bEZ9999\b|error code(?: is|:)? ?(561\d{3}|500002)\b"),
        cause="an operator failed inside CANN: torch_npu, the CANN kernels and the chip do not belong together",
        remedy="Install the torch_npu, CANN toolkit, kernels and nnal of one release, for this chip.",
        fault=Fault.CODE,
        example="[rank0]: RuntimeError: [ERROR] 2026-11-24-10:00:00 (PID:4711, Device:0, RankID:0) ERR01005 OPS internal error",
    ),
    Signature(
        name="acl-call-failed",
        needles=("ERR00100",),
        cause="a call into CANN failed",
        remedy="Read the error code below it and the device's log in ~/ascend/log/run/plog.",
        fault=Fault.INFRASTRUCTURE,
        wraps=True,
        example="[rank0]: [ERROR] 2026-11-24-10:00:00 (PID:4711, Device:0, RankID:0) ERR00100 PTA call acl api failed",
    ),
    Signature(
        name="hccl-call-failed",
        needles=("ERR02200",),
        cause="a collective operation failed",
        remedy="Read the E* code below it; look for an earlier error on the other ranks.",
        fault=Fault.INFRASTRUCTURE,
        wraps=True,
        example="[rank0]: RuntimeError: [ERROR] 2026-11-24-10:30:00 (PID:4711, Device:0, RankID:0) ERR02200 DIST call hccl api failed.",
    ),
    Signature(
        name="collective-peer-gone",
        needles=("Connection reset by peer", "Connection closed by peer", "Broken pipe", "gloo", "recvValue failed"),
        pattern=re.compile(
            r"Connection (reset|closed) by peer|Broken pipe.*(store|gloo)|\[.*gloo.*\].*(Read|Write|Socket) error|recvValue failed"
        ),
        cause="another rank or node has ended",
        remedy="Look for the first error on the other ranks and nodes.",
        fault=Fault.INFRASTRUCTURE,
        wraps=True,
        example="[rank1]: RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:31337",
    ),
    Signature(
        name="disk-full",
        needles=("No space left on device", "Errno 28", "Disk quota exceeded", "Errno 122", "PytorchStreamWriter"),
        pattern=re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b|PytorchStreamWriter failed"),
        cause="the disk is full",
        remedy="Free space: a checkpoint with its optimizer takes about 14 bytes a parameter; keep fewer of them.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 4416 vs 4310 (PytorchStreamWriter "
        "failed)",
    ),
    Signature(
        name="host-allocation-failed",
        needles=("Out of memory: Killed", "DefaultCPUAllocator", "MemoryError"),
        pattern=re.compile(r"Out of memory: Killed process|can't allocate memory|\bMemoryError\b"),
        cause="the host's memory ran out",
        remedy=_MEMORY_REMEDY,
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried "
        "to allocate 3111124992 bytes. Error code 12 (Cannot allocate memory)",
    ),
    Signature(
        name="host-out-of-memory",
        needles=("SIGKILL", "exitcode"),
        pattern=re.compile(r"Signal 9 \(SIGKILL\)|exitcode *: -9\b"),
        cause="a process was killed, mostly because the host's memory ran out",
        remedy=_MEMORY_REMEDY,
        fault=Fault.INFRASTRUCTURE,
        wraps=True,
        example="  exitcode  : -9 (pid: 4711)\n  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 4711",
    ),
)
