// A validated configuration as plain values: what the rest of the program works with (protobuf stops at vmm/config).
//
// Trust    every value is within its documented range; paths are as given, resolved against the configuration's folder.
// Threads  immutable.
#ifndef VMM_VMM_CONFIG_VM_CONFIG_H_
#define VMM_VMM_CONFIG_VM_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/log.h"
#include "devices/virtio/net/mac_address.h"
#include "memory/gpa.h"
#include "memory/guest_ram.h"
#include "sandbox/jail_options.h"

namespace vmm {

enum class OnFailure : uint8_t { kStop, kDetach, kRestart };
enum class SerialOutput : uint8_t { kStdio, kFile, kNull };
enum class ConsoleOutput : uint8_t { kNone, kPty, kFile, kSocket, kStdio };
enum class MachineKind : uint8_t { kStandard, kTest };
enum class HypervBacking : uint8_t { kKernel, kOwn };
enum class VsmProtection : uint8_t { kAuto, kPrivateAttribute, kHostMapping };

using SandboxOptions = JailOptions;

// RAM that no device process is given.
struct ReservedMemory {
  Gpa start;
  uint64_t bytes;
};

struct VmConfig {
  std::string name;
  MachineKind machine = MachineKind::kStandard;
  GuestRamOptions memory;  // less its reserved parts, which follow from these
  std::vector<ReservedMemory> reserved_memory;  // ascending, apart
  uint32_t processors = 1;

  struct {
    std::string kernel;
    std::string initramfs;  // empty: none
    std::string command_line;
  } boot;

  struct {
    bool enabled = true;
    SerialOutput output = SerialOutput::kStdio;
    std::string path;
    OnFailure on_failure = OnFailure::kStop;
  } serial;
  bool pvpanic = true;
  bool debug_port = false;

  struct {
    bool enabled = false;
    std::string socket;  // empty: a process of ours
    OnFailure on_failure = OnFailure::kStop;
  } rng;

  struct Block {
    std::string path;    // of the image; empty where `socket` names somebody else's backend
    std::string socket;
    bool read_only = false;
    std::string serial;
    uint16_t queues = 1;
    uint64_t bytes_per_second = 0;  // 0: no limit
    uint64_t operations_per_second = 0;
    OnFailure on_failure = OnFailure::kStop;
  };
  std::vector<Block> blocks;

  // One of tap, tap_fds, user and socket is given.
  struct Net {
    std::string tap;
    std::vector<int> tap_fds;
    bool user = false;
    std::string passt;  // the program of `user`
    std::string tcp_ports, udp_ports;
    std::string socket;
    MacAddress mac{};  // all zeros: random
    uint16_t mtu = 0;  // 0: not told
    uint16_t pairs = 1;
    uint64_t bytes_per_second = 0;  // 0: no limit
    uint64_t packets_per_second = 0;
    OnFailure on_failure = OnFailure::kStop;
  };
  std::vector<Net> nets;

  struct {
    ConsoleOutput output = ConsoleOutput::kNone;
    std::string path;
    OnFailure on_failure = OnFailure::kStop;
  } console;

  struct Fs {
    std::string tag;
    std::string path;    // empty where `socket` names a virtiofsd that runs
    std::string socket;
    std::string program;
    OnFailure on_failure = OnFailure::kStop;
  };
  std::vector<Fs> shares;

  struct {
    std::string path;  // empty: there is none
    uint32_t guest_cid = 3;
    OnFailure on_failure = OnFailure::kStop;
  } vsock;

  struct {
    bool enabled = false;
    uint64_t target_mib = 0;
    bool free_page_reporting = true;
    bool deflate_on_oom = true;
    uint32_t stats_seconds = 0;  // 0: never asked
    OnFailure on_failure = OnFailure::kStop;
  } balloon;

  struct {
    bool enabled = false;
    HypervBacking backing = HypervBacking::kKernel;
    bool vsm = false;
    bool claim_mbec = false;
    VsmProtection protection = VsmProtection::kAuto;
    bool round_unenforceable = false;
  } hyperv;

  SandboxOptions sandbox;
  MonitorJailOptions monitor;

  struct {
    LogLevel level = LogLevel::kInfo;
    LogFormat format = LogFormat::kText;
    std::string file;  // empty: standard error
  } logging;
};

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_VM_CONFIG_H_
