// What the machine tells its kernel, and the way out: fw_cfg, the boot information, the debug exit.
//
// Threads  fw_cfg: one processor at a time. The rest: any.
// Source   Multiboot Specification 0.6.96, "Boot information format"; QEMU, "docs/specs/fw_cfg", "isa-debug-exit".
#ifndef VMM_TESTS_GUESTS_RUNTIME_MACHINE_H_
#define VMM_TESTS_GUESTS_RUNTIME_MACHINE_H_

#include <cstdint>

namespace guest {

inline constexpr uint16_t kFwCfgSignature = 0;
inline constexpr uint16_t kFwCfgRamBytes = 3;   // 8 bytes
inline constexpr uint16_t kFwCfgCpus = 5;       // 2 bytes
inline constexpr uint16_t kFwCfgMaxCpus = 0xf;  // 2 bytes
// Little endian, `bytes` up to 8.
[[nodiscard]] uint64_t ReadFwCfg(uint16_t key, unsigned bytes);

inline constexpr uint16_t kDebugExitPort = 0xf4;
// The process that runs the machine ends with (value << 1) | 1.
[[noreturn]] void DebugExit(uint32_t value);

struct MemoryMapEntry {
  uint64_t start;
  uint64_t bytes;
  uint32_t type;  // 1: RAM
};

// Copies of what EBX pointed to; valid from the start of the first test.
struct BootInfo {
  uint32_t magic;
  uint32_t flags;
  uint32_t lower_kib, upper_kib;
  uint32_t memory_map_count;
  MemoryMapEntry memory_map[32];
  uint32_t module_count;
  uint64_t module_bytes;
  char module[4096];        // its beginning, with a NUL
  char command_line[1024];  // cut, with a NUL
};
[[nodiscard]] const BootInfo& GetBootInfo();

// The value of `key=value` on the command line, which ends at the next space; nullptr if it is not there.
// The text is copied to one place: use it before the next call.
[[nodiscard]] const char* Argument(const char* key);
// A decimal one.
[[nodiscard]] uint64_t NumberArgument(const char* key, uint64_t otherwise);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_MACHINE_H_
