#include "vcpu/access_decoder/system_access.h"

#include <algorithm>
#include <array>

namespace vmm {
namespace {

constexpr uint64_t kRflagsNt = 1u << 14;
constexpr uint64_t kRflagsVm = 1u << 17;

constexpr unsigned kStackPointerOffset = 4;     // RSP0 of a 64-bit TSS, ESP0 and SS0 of a 32-bit one
constexpr unsigned kIstOffset = 36;             // IST1
constexpr unsigned kPortBitmapOffset = 102;     // 16 bits
constexpr unsigned kAccessedByte = 4;           // the doubleword that holds A, or a TSS's busy bit

enum SystemType : unsigned {
  kLocalTable = 2,
  kTask16 = 1,
  kCallGate16 = 4,
  kTaskGate = 5,
  kInterruptGate16 = 6,
  kTrapGate16 = 7,
  kTask = 9,
  kCallGate = 12,
  kInterruptGate = 14,
  kTrapGate = 15,
};

struct Descriptor {
  uint64_t low = 0;
  uint64_t linear = 0;

  [[nodiscard]] unsigned type() const noexcept { return (low >> 40) & 0xf; }
  [[nodiscard]] bool segment() const noexcept { return (low >> 44 & 1) != 0; }
  [[nodiscard]] unsigned dpl() const noexcept { return (low >> 45) & 3; }
  [[nodiscard]] bool present() const noexcept { return (low >> 47 & 1) != 0; }
  [[nodiscard]] bool big() const noexcept { return (low >> 54 & 1) != 0; }
  [[nodiscard]] bool code() const noexcept { return segment() && (type() & 8) != 0; }
  [[nodiscard]] bool conforming() const noexcept { return (type() & 4) != 0; }
  [[nodiscard]] bool accessed() const noexcept { return (type() & 1) != 0; }
  [[nodiscard]] uint16_t gate_selector() const noexcept { return static_cast<uint16_t>(low >> 16); }
  [[nodiscard]] uint64_t base() const noexcept { return (low >> 16 & 0xff'ffff) | (low >> 32 & 0xff00'0000); }
  [[nodiscard]] uint32_t limit() const noexcept {
    const auto limit = static_cast<uint32_t>((low & 0xffff) | (low >> 32 & 0xf'0000));
    return (low >> 55 & 1) != 0 ? limit << 12 | 0xfff : limit;
  }
};

constexpr bool IsNull(uint16_t selector) { return (selector & ~3u) == 0; }

bool InTable(const GuestAccess& access, uint16_t selector) noexcept {
  const AccessRegisters& registers = access.registers();
  if ((selector & 4) == 0) return (selector | 7u) <= registers.gdt.limit;
  return !registers.ldtr.unusable && (selector | 7u) <= registers.ldtr.limit;
}

// `bytes`: 8, or 16 for the system descriptors of long mode, whose upper half is accessed but says nothing here.
bool LoadDescriptor(GuestAccess& access, uint16_t selector, unsigned bytes, Descriptor& out) noexcept {
  if (!InTable(access, selector)) return access.Fault();
  const AccessRegisters& registers = access.registers();
  out.linear = ((selector & 4) == 0 ? registers.gdt.base : registers.ldtr.base) + (selector & ~7u);
  if (!access.LoadSystem(out.linear, out.low)) return false;
  return bytes == 8 || access.Try(out.linear + 8, bytes - 8, AccessIntent::kRead, WalkPrivilege::kSystem);
}

bool SetAccessed(GuestAccess& access, const Descriptor& descriptor) noexcept {
  if (descriptor.accessed()) return true;
  return access.Try(descriptor.linear + kAccessedByte, 4, AccessIntent::kUpdate, WalkPrivilege::kSystem);
}

// A code segment that is jumped, called or returned to. Its own rights are checked as far as they can end the transfer early.
bool LoadCode(GuestAccess& access, uint16_t selector, Descriptor& out) noexcept {
  if (IsNull(selector)) return access.Fault();
  if (!LoadDescriptor(access, selector, 8, out)) return false;
  return out.code() && out.present() ? SetAccessed(access, out) : access.Fault();
}

// Of an inner stack: in protected mode outside long mode.
bool LoadInnerStack(GuestAccess& access, unsigned dpl, uint64_t& pointer, AccessSegment& segment) noexcept {
  const AccessRegisters& registers = access.registers();
  const unsigned offset = kStackPointerOffset + 8 * dpl;
  if ((registers.tr.type & 8) == 0) return access.Unknown();  // a 16-bit TSS
  if (registers.tr.unusable || offset + 5 > registers.tr.limit) return access.Fault();
  uint32_t esp = 0;
  uint16_t selector = 0;
  if (!access.LoadSystem(registers.tr.base + offset, esp) || !access.LoadSystem(registers.tr.base + offset + 4, selector)) {
    return false;
  }
  if (IsNull(selector)) return access.Fault();
  Descriptor descriptor;
  if (!LoadDescriptor(access, selector, 8, descriptor)) return false;
  if (!descriptor.segment() || descriptor.code() || !descriptor.present()) return access.Fault();
  if (!SetAccessed(access, descriptor)) return false;
  pointer = esp;
  segment = {.base = descriptor.base(),
             .limit = descriptor.limit(),
             .selector = selector,
             .type = static_cast<uint8_t>(descriptor.type()),
             .big = descriptor.big()};
  return true;
}

bool LoadLongStack(GuestAccess& access, unsigned offset, uint64_t& pointer) noexcept {
  const AccessRegisters& registers = access.registers();
  if (registers.tr.unusable || offset + 7 > registers.tr.limit) return access.Fault();
  return access.LoadSystem(registers.tr.base + offset, pointer);
}

// 64-bit pushes, whatever the code that is left.
bool PushLong(GuestAccess& access, uint64_t pointer, unsigned count, unsigned dpl) noexcept {
  const WalkPrivilege privilege = dpl == 3 ? WalkPrivilege::kUser : WalkPrivilege::kSystem;
  for (; count != 0; --count) {
    pointer -= 8;
    if (!access.Try(pointer, 8, AccessIntent::kWrite, privilege)) return false;
  }
  return true;
}

bool CallThroughGate(GuestAccess& access, const Descriptor& gate) noexcept {
  const AccessRegisters& registers = access.registers();
  const unsigned word = access.long_mode() ? 8 : gate.type() == kCallGate ? 4 : 2;
  Descriptor target;
  if (!LoadCode(access, gate.gate_selector(), target)) return false;
  if (target.conforming() || target.dpl() >= registers.cpl) {
    if (word == 8) return PushLong(access, registers.gpr[4], 2, registers.cpl);
    return AccessStack(access).Push(word, 2);
  }
  uint64_t pointer = 0;
  if (word == 8) {
    return LoadLongStack(access, kStackPointerOffset + 8 * target.dpl(), pointer) && PushLong(access, pointer, 4, target.dpl());
  }
  AccessSegment segment;
  if (!LoadInnerStack(access, target.dpl(), pointer, segment)) return false;
  AccessStack inner(access, segment, pointer, segment.big ? 0xffff'ffff : 0xffff, WalkPrivilege::kSystem);
  if (!inner.Push(word, 2)) return false;
  // Parameters, the last first.
  AccessStack outer(access);
  const unsigned parameters = static_cast<unsigned>(gate.low >> 32) & 0x1f;
  for (unsigned n = parameters; n != 0; --n) {
    if (!outer.Peek(outer.pointer() + (n - 1) * word, word) || !inner.Push(word)) return false;
  }
  return inner.Push(word, 2);
}

// The descriptor that a far jump or call names. `gate`: it is a call gate, and read whole.
bool LoadTarget(GuestAccess& access, uint16_t selector, Descriptor& out, bool& gate) noexcept {
  gate = false;
  if (IsNull(selector)) return access.Fault();
  if (!LoadDescriptor(access, selector, 8, out)) return false;
  if (!out.present()) return access.Fault();
  if (out.segment()) return out.code() ? SetAccessed(access, out) : access.Fault();
  if (out.type() == kCallGate || (out.type() == kCallGate16 && !access.long_mode())) {
    gate = true;
    return !access.long_mode() || access.Try(out.linear + 8, 8, AccessIntent::kRead, WalkPrivilege::kSystem);
  }
  // A task switch, but in long mode, which has none.
  return access.long_mode() ? access.Fault() : access.Unknown();
}

bool TryLongEvent(GuestAccess& access, const AccessEvent& event) noexcept {
  const AccessRegisters& registers = access.registers();
  if (event.vector * 16u + 15 > registers.idt.limit) return access.Fault();
  std::array<uint64_t, 2> words{};
  if (!access.LoadSystem(registers.idt.base + event.vector * 16u, words)) return false;
  const Descriptor gate{.low = words[0]};
  if (gate.segment() || (gate.type() != kInterruptGate && gate.type() != kTrapGate) || !gate.present()) return access.Fault();
  if (event.software && gate.dpl() < registers.cpl) return access.Fault();
  Descriptor target;
  if (!LoadCode(access, gate.gate_selector(), target)) return false;
  const bool inner = !target.conforming() && target.dpl() < registers.cpl;
  const unsigned ist = static_cast<unsigned>(gate.low >> 32) & 7;
  uint64_t pointer = registers.gpr[4];
  if (ist != 0) {
    if (!LoadLongStack(access, kIstOffset + 8 * (ist - 1), pointer)) return false;
  } else if (inner) {
    if (!LoadLongStack(access, kStackPointerOffset + 8 * target.dpl(), pointer)) return false;
  }
  return PushLong(access, pointer & ~uint64_t{15}, event.has_error_code ? 6 : 5, inner ? target.dpl() : registers.cpl);
}

bool TryProtectedEvent(GuestAccess& access, const AccessEvent& event) noexcept {
  const AccessRegisters& registers = access.registers();
  if (event.vector * 8u + 7 > registers.idt.limit) return access.Fault();
  Descriptor gate;
  if (!access.LoadSystem(registers.idt.base + event.vector * 8u, gate.low)) return false;
  if (gate.segment() || !gate.present()) return access.Fault();
  if (event.software && gate.dpl() < registers.cpl) return access.Fault();
  if (gate.type() == kTaskGate) return access.Unknown();
  const bool wide = gate.type() == kInterruptGate || gate.type() == kTrapGate;
  if (!wide && gate.type() != kInterruptGate16 && gate.type() != kTrapGate16) return access.Fault();
  const unsigned word = wide ? 4 : 2;
  const unsigned error_words = event.has_error_code ? 1 : 0;
  Descriptor target;
  if (!LoadCode(access, gate.gate_selector(), target)) return false;
  if (target.conforming() || target.dpl() >= registers.cpl) return AccessStack(access).Push(word, 3 + error_words);
  uint64_t pointer = 0;
  AccessSegment segment;
  if (!LoadInnerStack(access, target.dpl(), pointer, segment)) return false;
  AccessStack inner(access, segment, pointer, segment.big ? 0xffff'ffff : 0xffff, WalkPrivilege::kSystem);
  const unsigned data_segments = access.virtual_8086() ? 4 : 0;
  return inner.Push(word, data_segments + 5 + error_words);
}

}  // namespace

bool TryLoadSegment(GuestAccess& access, uint16_t selector, SegmentLoad kind) noexcept {
  if (access.real_mode()) return true;
  const AccessRegisters& registers = access.registers();
  const unsigned rpl = selector & 3;
  if (IsNull(selector)) {
    if (kind == SegmentLoad::kData) return true;
    return access.code64() && registers.cpl != 3 && rpl == registers.cpl ? true : access.Fault();
  }
  Descriptor descriptor;
  if (!LoadDescriptor(access, selector, 8, descriptor)) return false;
  if (!descriptor.segment()) return access.Fault();
  const bool read_write = (descriptor.type() & 2) != 0;
  if (kind == SegmentLoad::kStack) {
    if (descriptor.code() || !read_write || rpl != registers.cpl || descriptor.dpl() != registers.cpl) return access.Fault();
  } else {
    if (descriptor.code() && !read_write) return access.Fault();
    const bool any_level = descriptor.code() && descriptor.conforming();
    if (!any_level && descriptor.dpl() < std::max<unsigned>(rpl, registers.cpl)) return access.Fault();
  }
  return descriptor.present() ? SetAccessed(access, descriptor) : access.Fault();
}

bool TryLoadLocalTable(GuestAccess& access, uint16_t selector) noexcept {
  if (access.real_mode() || access.registers().cpl != 0 || (selector & 4) != 0) return access.Fault();
  if (IsNull(selector)) return true;
  Descriptor descriptor;
  if (!LoadDescriptor(access, selector, access.long_mode() ? 16 : 8, descriptor)) return false;
  return !descriptor.segment() && descriptor.type() == kLocalTable && descriptor.present() ? true : access.Fault();
}

bool TryLoadTask(GuestAccess& access, uint16_t selector) noexcept {
  if (access.real_mode() || access.registers().cpl != 0 || (selector & 4) != 0 || IsNull(selector)) return access.Fault();
  Descriptor descriptor;
  if (!LoadDescriptor(access, selector, access.long_mode() ? 16 : 8, descriptor)) return false;
  const bool task = descriptor.type() == kTask || (descriptor.type() == kTask16 && !access.long_mode());
  if (descriptor.segment() || !task || !descriptor.present()) return access.Fault();
  return access.Try(descriptor.linear + kAccessedByte, 4, AccessIntent::kUpdate, WalkPrivilege::kSystem);
}

bool TryInspect(GuestAccess& access, uint16_t selector) noexcept {
  if (access.real_mode()) return access.Fault();
  if (IsNull(selector) || !InTable(access, selector)) return true;
  Descriptor descriptor;
  return LoadDescriptor(access, selector, 8, descriptor);
}

bool TryFarJump(GuestAccess& access, uint16_t selector) noexcept {
  if (access.real_mode()) return true;
  Descriptor target;
  bool gate = false;
  if (!LoadTarget(access, selector, target, gate)) return false;
  return !gate || LoadCode(access, target.gate_selector(), target);
}

bool TryFarCall(GuestAccess& access, uint16_t selector, unsigned bytes) noexcept {
  if (access.real_mode()) return AccessStack(access).Push(bytes, 2);
  Descriptor target;
  bool gate = false;
  if (!LoadTarget(access, selector, target, gate)) return false;
  return gate ? CallThroughGate(access, target) : AccessStack(access).Push(bytes, 2);
}

bool TryFarReturn(GuestAccess& access, unsigned bytes, unsigned released_bytes) noexcept {
  AccessStack stack(access);
  uint64_t selector = 0;
  if (!stack.Pop(bytes) || !stack.Pop(bytes, &selector)) return false;
  if (access.real_mode()) return true;
  Descriptor descriptor;
  if (!LoadCode(access, static_cast<uint16_t>(selector), descriptor)) return false;
  if ((selector & 3) <= access.registers().cpl) return true;
  stack.Skip(released_bytes);
  if (!stack.Pop(bytes) || !stack.Pop(bytes, &selector)) return false;
  if (IsNull(static_cast<uint16_t>(selector))) return access.code64() ? true : access.Fault();
  if (!LoadDescriptor(access, static_cast<uint16_t>(selector), 8, descriptor)) return false;
  return descriptor.segment() && descriptor.present() ? SetAccessed(access, descriptor) : access.Fault();
}

bool TryInterruptReturn(GuestAccess& access, unsigned bytes) noexcept {
  const AccessRegisters& registers = access.registers();
  AccessStack stack(access);
  uint64_t code = 0;
  uint64_t flags = 0;
  uint64_t stack_selector = 0;
  if (!access.real_mode() && (registers.rflags & kRflagsNt) != 0) {
    return access.long_mode() ? access.Fault() : access.Unknown();  // a task switch
  }
  if (!stack.Pop(bytes) || !stack.Pop(bytes, &code) || !stack.Pop(bytes, &flags)) return false;
  if (access.real_mode()) return true;
  const bool to_virtual_8086 = !access.long_mode() && registers.cpl == 0 && bytes == 4 && (flags & kRflagsVm) != 0;
  if (to_virtual_8086) {
    for (int i = 0; i < 6; ++i) {
      if (!stack.Pop(bytes)) return false;
    }
    return true;
  }
  if (access.code64() && (!stack.Pop(bytes) || !stack.Pop(bytes, &stack_selector))) return false;
  Descriptor descriptor;
  if (!LoadCode(access, static_cast<uint16_t>(code), descriptor)) return false;
  if (!access.code64()) {
    if ((code & 3) <= registers.cpl) return true;
    if (!stack.Pop(bytes) || !stack.Pop(bytes, &stack_selector)) return false;
    if (IsNull(static_cast<uint16_t>(stack_selector))) return access.Fault();
  }
  if (IsNull(static_cast<uint16_t>(stack_selector))) return true;
  if (!LoadDescriptor(access, static_cast<uint16_t>(stack_selector), 8, descriptor)) return false;
  return descriptor.segment() && descriptor.present() ? SetAccessed(access, descriptor) : access.Fault();
}

bool TryEvent(GuestAccess& access, const AccessEvent& event) noexcept {
  if (access.long_mode()) return TryLongEvent(access, event);
  if (!access.real_mode()) return TryProtectedEvent(access, event);
  if (access.virtual_8086()) {
    // With VME, or by IOPL, it may stay in virtual-8086 mode.
    return event.software ? access.Unknown() : TryProtectedEvent(access, event);
  }
  const AccessRegisters& registers = access.registers();
  if (event.vector * 4u + 3 > registers.idt.limit) return access.Fault();
  return access.Try(registers.idt.base + event.vector * 4u, 4, AccessIntent::kRead, WalkPrivilege::kSystem) &&
         AccessStack(access).Push(2, 3);
}

bool TryPortPermission(GuestAccess& access, uint16_t port, unsigned bytes) noexcept {
  const AccessRegisters& registers = access.registers();
  const unsigned iopl = static_cast<unsigned>(registers.rflags >> 12) & 3;
  if (!access.virtual_8086() && (access.real_mode() || registers.cpl <= iopl)) return true;
  if (registers.tr.unusable || kPortBitmapOffset + 1 > registers.tr.limit) return access.Fault();
  uint16_t start = 0;
  if (!access.LoadSystem(registers.tr.base + kPortBitmapOffset, start)) return false;
  const uint32_t offset = start + port / 8u;
  if (offset + 1 > registers.tr.limit) return access.Fault();
  uint16_t bits = 0;
  if (!access.LoadSystem(registers.tr.base + offset, bits)) return false;
  return ((bits >> port % 8) & ((1u << bytes) - 1)) == 0 ? true : access.Fault();
}

}  // namespace vmm
