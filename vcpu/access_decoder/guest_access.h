// Accesses of one instruction, tried one after the other until one ends it. Internal to the access decoder.
//
// Threads  confined to the call that made it.
// Errors   every access: false ends the instruction, and result() says why. Callers only pass it on.
#ifndef VMM_VCPU_ACCESS_DECODER_GUEST_ACCESS_H_
#define VMM_VCPU_ACCESS_DECODER_GUEST_ACCESS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/guest_memory.h"
#include "vcpu/access_decoder/access_decoder.h"
#include "vcpu/page_walk.h"

namespace vmm {

enum class AccessIntent : uint8_t { kRead, kWrite, kUpdate, kExecute };

class GuestAccess final {
 public:
  GuestAccess(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view) noexcept;

  [[nodiscard]] const AccessRegisters& registers() const noexcept { return registers_; }
  [[nodiscard]] bool real_mode() const noexcept;  // or virtual-8086: segments are not descriptors
  [[nodiscard]] bool virtual_8086() const noexcept;
  [[nodiscard]] bool long_mode() const noexcept;  // EFER.LMA
  [[nodiscard]] bool code64() const noexcept;
  [[nodiscard]] WalkPrivilege privilege() const noexcept;  // of what the instruction names

  // At a linear address, which wraps as the mode has it. `bytes` may be 0.
  bool Try(uint64_t linear, uint64_t bytes, AccessIntent intent, WalkPrivilege privilege) noexcept;
  // A read whose bytes are wanted too.
  bool Load(uint64_t linear, std::span<std::byte> out, AccessIntent intent, WalkPrivilege privilege) noexcept;
  template <typename T>
  bool LoadSystem(uint64_t linear, T& out) noexcept {
    return Load(linear, std::as_writable_bytes(std::span(&out, 1)), AccessIntent::kRead, WalkPrivilege::kSystem);
  }

  // The linear address of `offset` in a segment, checked against its limit. `flat`: in 64-bit code, a segment without base.
  bool Resolve(const AccessSegment& segment, bool flat, uint64_t offset, uint64_t bytes, uint64_t& linear) noexcept;
  [[nodiscard]] uint64_t stack_mask() const noexcept;

  // The guest's own fault, or what is not known. Both return false.
  bool Fault() noexcept { return End(AccessFinding::kGuestFault); }
  bool Unknown() noexcept { return End(AccessFinding::kUnknown); }

  // kNone until something ended the instruction.
  [[nodiscard]] AccessDecoding& result() noexcept { return result_; }

 private:
  bool TryAll(uint64_t linear, uint64_t bytes, AccessIntent intent, WalkPrivilege privilege, std::byte* out) noexcept;
  bool End(AccessFinding finding) noexcept;
  bool Violate(Gpa gpa, AccessKind kind) noexcept;
  bool Copy(Gpa gpa, uint64_t bytes, std::byte* out) noexcept;

  const AccessRegisters& registers_;
  const GuestMemory& memory_;
  const LevelView& view_;
  const PagingState paging_;
  AccessDecoding result_;
};

// The stack from RSP on, as an instruction moves it along.
class AccessStack final {
 public:
  // The current one.
  explicit AccessStack(GuestAccess& access) noexcept
      : AccessStack(access, access.registers().ss, access.registers().gpr[4], access.stack_mask(), access.privilege()) {}
  AccessStack(GuestAccess& access, const AccessSegment& segment, uint64_t pointer, uint64_t mask,
              WalkPrivilege privilege) noexcept
      : access_(access), segment_(segment), pointer_(pointer & mask), mask_(mask), privilege_(privilege) {}

  bool Push(uint64_t bytes) noexcept;
  bool Push(uint64_t bytes, unsigned times) noexcept;
  // Sizes of 2, 4 and 8: the value; else 0.
  bool Pop(uint64_t bytes, uint64_t* value = nullptr) noexcept;
  // Without moving the pointer.
  bool Peek(uint64_t pointer, uint64_t bytes) noexcept;
  // A write at the pointer that stores nothing.
  bool Probe() noexcept;
  void Skip(uint64_t bytes) noexcept { pointer_ = (pointer_ + bytes) & mask_; }
  [[nodiscard]] uint64_t pointer() const noexcept { return pointer_; }

 private:
  GuestAccess& access_;
  const AccessSegment segment_;
  uint64_t pointer_;
  const uint64_t mask_;
  const WalkPrivilege privilege_;
};

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_GUEST_ACCESS_H_
