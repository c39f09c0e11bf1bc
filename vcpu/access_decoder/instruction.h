// One decoded instruction and the registers that its operands name. Internal to the access decoder.
//
// Threads  confined to the call that made it.
#ifndef VMM_VCPU_ACCESS_DECODER_INSTRUCTION_H_
#define VMM_VCPU_ACCESS_DECODER_INSTRUCTION_H_

#include <array>
#include <cstdint>
#include <span>

#include <Zydis/Zydis.h>

#include "vcpu/access_decoder/guest_access.h"

namespace vmm {

struct Instruction {
  ZydisDecodedInstruction info;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operand_list;

  [[nodiscard]] std::span<const ZydisDecodedOperand> operands() const noexcept {
    return std::span(operand_list).first(info.operand_count);
  }
  [[nodiscard]] unsigned operand_bytes() const noexcept { return info.operand_width / 8; }
};

// 16-, 32- and 64-bit general registers, and RIP as it is behind the instruction; anything else is 0.
[[nodiscard]] uint64_t RegisterValue(const GuestAccess& access, const Instruction& instruction, ZydisRegister reg) noexcept;
// The number of a register within its class.
[[nodiscard]] unsigned RegisterNumber(ZydisRegister reg) noexcept;

// Where a memory operand is, `extra` added before the address is cut to its size. VSIB: the caller's `extra` has the index.
bool OperandAddress(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand, uint64_t extra,
                    uint64_t bytes, uint64_t& linear) noexcept;
bool TryOperand(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand, uint64_t extra,
                uint64_t bytes, AccessIntent intent) noexcept;
bool LoadOperand(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
                 std::span<std::byte> out) noexcept;

[[nodiscard]] AccessIntent OperandIntent(const ZydisDecodedOperand& operand) noexcept;
[[nodiscard]] bool IsMemory(const ZydisDecodedOperand& operand) noexcept;

// vector_access.cc: gathers, scatters, masked elements, XSAVE's area. kNotVector: nothing of these.
enum class VectorOutcome : uint8_t { kNotVector, kDone, kEnded };
VectorOutcome TryVectorAccess(GuestAccess& access, const Instruction& instruction, VectorState& vectors) noexcept;

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_INSTRUCTION_H_
