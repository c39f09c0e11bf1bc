#include "vcpu/access_decoder/guest_access.h"

#include <algorithm>
#include <cstring>

namespace vmm {
namespace {

constexpr uint64_t kCr0Pe = 1;
constexpr uint64_t kEferLma = 1u << 10;
constexpr uint64_t kRflagsVm = 1u << 17;

bool IsExpandDown(const AccessSegment& segment) { return (segment.type & 0xc) == 4; }

}  // namespace

GuestAccess::GuestAccess(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view) noexcept
    : registers_(registers),
      memory_(memory),
      view_(view),
      paging_{.cr0 = registers.cr0,
              .cr3 = registers.cr3,
              .cr4 = registers.cr4,
              .efer = registers.efer,
              .rflags = registers.rflags,
              .physical_bits = registers.physical_bits,
              .gigabyte_pages = registers.gigabyte_pages} {}

bool GuestAccess::virtual_8086() const noexcept {
  return (registers_.cr0 & kCr0Pe) != 0 && !long_mode() && (registers_.rflags & kRflagsVm) != 0;
}
bool GuestAccess::real_mode() const noexcept { return (registers_.cr0 & kCr0Pe) == 0 || virtual_8086(); }
bool GuestAccess::long_mode() const noexcept { return (registers_.efer & kEferLma) != 0; }
bool GuestAccess::code64() const noexcept { return long_mode() && registers_.cs.long_mode; }

WalkPrivilege GuestAccess::privilege() const noexcept {
  return registers_.cpl == 3 || virtual_8086() ? WalkPrivilege::kUser : WalkPrivilege::kSupervisor;
}

uint64_t GuestAccess::stack_mask() const noexcept {
  if (code64()) return ~uint64_t{0};
  return registers_.ss.big ? 0xffff'ffff : 0xffff;
}

bool GuestAccess::Try(uint64_t linear, uint64_t bytes, AccessIntent intent, WalkPrivilege privilege) noexcept {
  return TryAll(linear, bytes, intent, privilege, nullptr);
}

bool GuestAccess::Load(uint64_t linear, std::span<std::byte> out, AccessIntent intent, WalkPrivilege privilege) noexcept {
  return TryAll(linear, out.size(), intent, privilege, out.data());
}

bool GuestAccess::TryAll(uint64_t linear, uint64_t bytes, AccessIntent intent, WalkPrivilege privilege, std::byte* out) noexcept {
  const uint64_t wrap = code64() ? ~uint64_t{0} : 0xffff'ffff;
  // Descriptor tables and the TSS have 64-bit bases in compatibility mode too.
  const uint64_t mask = long_mode() && privilege == WalkPrivilege::kSystem ? ~uint64_t{0} : wrap;
  const bool reads = intent == AccessIntent::kRead || intent == AccessIntent::kUpdate;
  const bool writes = intent == AccessIntent::kWrite || intent == AccessIntent::kUpdate;
  const WalkAccess walk_access = writes                              ? WalkAccess::kWrite
                                 : intent == AccessIntent::kExecute ? WalkAccess::kExecute
                                                                     : WalkAccess::kRead;
  while (bytes != 0) {
    linear &= mask;
    const uint64_t chunk = std::min(bytes, kPageBytes - linear % kPageBytes);
    const PageWalk walk = WalkPageTables(memory_, paging_, linear, walk_access, privilege);
    for (const TableAccess& table : walk.accesses()) {
      const PageRights rights = view_.Rights(table.gpa.page());
      const bool refused_read = !rights.read();
      const bool refused_write = !rights.write() && (table.write || registers_.table_reads_need_write);
      if (!refused_read && !refused_write) continue;
      result_.violation.page_table = true;
      return Violate(table.gpa, refused_read ? AccessKind::kRead : AccessKind::kWrite);
    }
    if (walk.fault != WalkFault::kNone) return Fault();

    result_.violation.gva = linear;
    const PageRights rights = view_.Rights(walk.gpa.page());
    if (reads && !rights.read()) return Violate(walk.gpa, AccessKind::kRead);
    if (writes && !(rights.read() && rights.write())) return Violate(walk.gpa, AccessKind::kWrite);
    if (intent == AccessIntent::kExecute) {
      const bool user = privilege == WalkPrivilege::kUser && registers_.mode_based_execution;
      if (!(user ? rights.user_execute() : rights.kernel_execute())) return Violate(walk.gpa, AccessKind::kExecute);
    }
    if (out != nullptr) {
      if (!Copy(walk.gpa, chunk, out)) return Unknown();
      out += chunk;
    }
    linear += chunk;
    bytes -= chunk;
  }
  return true;
}

// Device memory has no bytes that may be looked at.
bool GuestAccess::Copy(Gpa gpa, uint64_t bytes, std::byte* out) noexcept {
  if (const std::byte* const overlay = view_.Overlay(gpa.page()); overlay != nullptr) {
    std::memcpy(out, overlay + gpa.page_offset(), bytes);
    return true;
  }
  return memory_.Read(gpa, std::span(out, bytes));
}

bool GuestAccess::Violate(Gpa gpa, AccessKind kind) noexcept {
  if (result_.violation.page_table) result_.violation.gva.reset();
  result_.violation.gpa = gpa;
  result_.violation.kind = kind;
  return End(AccessFinding::kViolation);
}

bool GuestAccess::End(AccessFinding finding) noexcept {
  result_.finding = finding;
  return false;
}

bool GuestAccess::Resolve(const AccessSegment& segment, bool flat, uint64_t offset, uint64_t bytes, uint64_t& linear) noexcept {
  if (code64()) {
    linear = offset + (flat ? 0 : segment.base);
    return true;
  }
  if (segment.unusable) return Fault();
  if (bytes != 0) {
    const uint64_t last = offset + bytes - 1;
    if (IsExpandDown(segment) && !real_mode()) {
      if (offset <= segment.limit || last > (segment.big ? 0xffff'ffff : 0xffff)) return Fault();
    } else if (last > segment.limit) {
      return Fault();
    }
  }
  linear = (segment.base + offset) & 0xffff'ffff;
  return true;
}

bool AccessStack::Push(uint64_t bytes) noexcept {
  pointer_ = (pointer_ - bytes) & mask_;
  uint64_t linear = 0;
  return access_.Resolve(segment_, true, pointer_, bytes, linear) &&
         access_.Try(linear, bytes, AccessIntent::kWrite, privilege_);
}

bool AccessStack::Push(uint64_t bytes, unsigned times) noexcept {
  for (; times != 0; --times) {
    if (!Push(bytes)) return false;
  }
  return true;
}

bool AccessStack::Probe() noexcept {
  uint64_t linear = 0;
  return access_.Resolve(segment_, true, pointer_, 1, linear) && access_.Try(linear, 1, AccessIntent::kWrite, privilege_);
}

bool AccessStack::Peek(uint64_t pointer, uint64_t bytes) noexcept {
  uint64_t linear = 0;
  return access_.Resolve(segment_, true, pointer & mask_, bytes, linear) &&
         access_.Try(linear, bytes, AccessIntent::kRead, privilege_);
}

bool AccessStack::Pop(uint64_t bytes, uint64_t* value) noexcept {
  uint64_t linear = 0;
  if (!access_.Resolve(segment_, true, pointer_, bytes, linear)) return false;
  if (value == nullptr || bytes > sizeof(*value)) {
    if (!access_.Try(linear, bytes, AccessIntent::kRead, privilege_)) return false;
  } else {
    *value = 0;
    if (!access_.Load(linear, std::as_writable_bytes(std::span(value, 1)).first(bytes), AccessIntent::kRead, privilege_)) {
      return false;
    }
  }
  pointer_ = (pointer_ + bytes) & mask_;
  return true;
}

}  // namespace vmm
