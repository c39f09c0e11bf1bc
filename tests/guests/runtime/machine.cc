#include "tests/guests/runtime/machine.h"

#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/main.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/print.h"

extern "C" {
extern uint32_t guest_boot_magic, guest_boot_info;
}

namespace guest {
namespace {

constexpr uint16_t kFwCfgSelector = 0x510;
constexpr uint16_t kFwCfgData = 0x511;

constexpr uint32_t kHasMemory = 1 << 0;
constexpr uint32_t kHasCommandLine = 1 << 2;
constexpr uint32_t kHasModules = 1 << 3;
constexpr uint32_t kHasMemoryMap = 1 << 6;

struct [[gnu::packed]] WireInfo {
  uint32_t flags;
  uint32_t lower_kib, upper_kib;
  uint32_t boot_device;
  uint32_t command_line;
  uint32_t module_count, modules;
  uint32_t symbols[4];
  uint32_t memory_map_bytes, memory_map;
};
struct [[gnu::packed]] WireModule {
  uint32_t start, end, text, reserved;
};
struct [[gnu::packed]] WireMemory {
  uint32_t size;  // of what follows
  uint64_t start, bytes;
  uint32_t type;
};

BootInfo g_boot_info;
char g_argument[256];

}  // namespace

uint64_t ReadFwCfg(uint16_t key, unsigned bytes) {
  Out16(kFwCfgSelector, key);
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value |= uint64_t{In8(kFwCfgData)} << (8 * i);
  return value;
}

void DebugExit(uint32_t value) {
  DisableInterrupts();
  if (value != 0) SayLastWords();
  Out32(kDebugExitPort, value);
  // A machine without the port: the runner's limit ends it.
  while (true) asm volatile("cli; hlt");
}

void CopyBootInfo() {
  BootInfo& info = g_boot_info;
  info.magic = guest_boot_magic;
  const auto* const wire = reinterpret_cast<const WireInfo*>(uint64_t{guest_boot_info});
  info.flags = wire->flags;
  if ((wire->flags & kHasMemory) != 0) {
    info.lower_kib = wire->lower_kib;
    info.upper_kib = wire->upper_kib;
  }
  if ((wire->flags & kHasCommandLine) != 0) {
    const char* from = reinterpret_cast<const char*>(uint64_t{wire->command_line});
    for (size_t i = 0; i + 1 < sizeof(info.command_line) && from[i] != '\0'; ++i) info.command_line[i] = from[i];
  }
  if ((wire->flags & kHasModules) != 0 && wire->module_count > 0) {
    info.module_count = wire->module_count;
    const auto* const module = reinterpret_cast<const WireModule*>(uint64_t{wire->modules});
    info.module_bytes = module->end - module->start;
    const char* from = reinterpret_cast<const char*>(uint64_t{module->start});
    for (size_t i = 0; i + 1 < sizeof(info.module) && i < info.module_bytes; ++i) info.module[i] = from[i];
  }
  if ((wire->flags & kHasMemoryMap) != 0) {
    const uint64_t end = uint64_t{wire->memory_map} + wire->memory_map_bytes;
    for (uint64_t at = wire->memory_map; at + sizeof(WireMemory) <= end && info.memory_map_count < 32;) {
      const auto* const entry = reinterpret_cast<const WireMemory*>(at);
      info.memory_map[info.memory_map_count++] = {entry->start, entry->bytes, entry->type};
      at += entry->size + sizeof(entry->size);
    }
  }
}

const BootInfo& GetBootInfo() { return g_boot_info; }

const char* Argument(const char* key) {
  const size_t length = strlen(key);
  for (const char* at = g_boot_info.command_line; *at != '\0';) {
    while (*at == ' ') ++at;
    const char* const word = at;
    while (*at != ' ' && *at != '\0') ++at;
    if (static_cast<size_t>(at - word) > length && memcmp(word, key, length) == 0 && word[length] == '=') {
      size_t used = 0;
      for (const char* from = word + length + 1; from < at && used + 1 < sizeof(g_argument); ++from) g_argument[used++] = *from;
      g_argument[used] = '\0';
      return g_argument;
    }
  }
  return nullptr;
}

uint64_t NumberArgument(const char* key, uint64_t otherwise) {
  const char* text = Argument(key);
  if (text == nullptr) return otherwise;
  uint64_t value = 0;
  for (; *text >= '0' && *text <= '9'; ++text) value = value * 10 + static_cast<uint64_t>(*text - '0');
  return value;
}

}  // namespace guest
