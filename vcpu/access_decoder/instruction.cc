#include "vcpu/access_decoder/instruction.h"

namespace vmm {
namespace {

const AccessSegment& SegmentOf(const AccessRegisters& registers, ZydisRegister reg) noexcept {
  switch (reg) {
    case ZYDIS_REGISTER_ES: return registers.es;
    case ZYDIS_REGISTER_CS: return registers.cs;
    case ZYDIS_REGISTER_SS: return registers.ss;
    case ZYDIS_REGISTER_FS: return registers.fs;
    case ZYDIS_REGISTER_GS: return registers.gs;
    default: return registers.ds;
  }
}

constexpr uint64_t WidthMask(unsigned bits) noexcept { return bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1; }

bool IsStackPointer(ZydisRegister reg) noexcept {
  return reg == ZYDIS_REGISTER_RSP || reg == ZYDIS_REGISTER_ESP || reg == ZYDIS_REGISTER_SP;
}

}  // namespace

unsigned RegisterNumber(ZydisRegister reg) noexcept {
  const ZyanI8 id = ZydisRegisterGetId(reg);
  return id < 0 ? 0 : static_cast<unsigned>(id);
}

uint64_t RegisterValue(const GuestAccess& access, const Instruction& instruction, ZydisRegister reg) noexcept {
  const std::array<uint64_t, 16>& gpr = access.registers().gpr;
  const unsigned number = RegisterNumber(reg) % gpr.size();
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR64: return gpr[number];
    case ZYDIS_REGCLASS_GPR32: return gpr[number] & 0xffff'ffff;
    case ZYDIS_REGCLASS_GPR16: return gpr[number] & 0xffff;
    case ZYDIS_REGCLASS_IP: return access.registers().rip + instruction.info.length;
    default: return 0;
  }
}

AccessIntent OperandIntent(const ZydisDecodedOperand& operand) noexcept {
  const bool reads = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
  const bool writes = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  if (!writes) return AccessIntent::kRead;
  return reads ? AccessIntent::kUpdate : AccessIntent::kWrite;
}

bool IsMemory(const ZydisDecodedOperand& operand) noexcept {
  return operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.type != ZYDIS_MEMOP_TYPE_AGEN;
}

bool OperandAddress(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand, uint64_t extra,
                    uint64_t bytes, uint64_t& linear) noexcept {
  const auto& mem = operand.mem;
  const AccessRegisters& registers = access.registers();
  uint64_t offset = RegisterValue(access, instruction, mem.base) + extra;
  uint64_t mask = WidthMask(instruction.info.address_width);
  if (operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && mem.segment == ZYDIS_REGISTER_SS) {
    // The stack, by its own address size; pushes write below the pointer.
    mask = access.stack_mask();
    offset = registers.gpr[IsStackPointer(mem.base) ? 4 : 5] + extra;
    if (IsStackPointer(mem.base) && OperandIntent(operand) == AccessIntent::kWrite) offset -= bytes;
  } else {
    if (mem.type != ZYDIS_MEMOP_TYPE_VSIB) offset += RegisterValue(access, instruction, mem.index) * mem.scale;
    offset += static_cast<uint64_t>(mem.disp.value);
    if (instruction.info.mnemonic == ZYDIS_MNEMONIC_XLAT) offset += registers.gpr[0] & 0xff;
    // POP's own destination is found with the pointer moved.
    if (instruction.info.mnemonic == ZYDIS_MNEMONIC_POP && IsStackPointer(mem.base)) offset += instruction.operand_bytes();
  }
  const bool flat = mem.segment != ZYDIS_REGISTER_FS && mem.segment != ZYDIS_REGISTER_GS;
  return access.Resolve(SegmentOf(registers, mem.segment), flat, offset & mask, bytes, linear);
}

bool TryOperand(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand, uint64_t extra,
                uint64_t bytes, AccessIntent intent) noexcept {
  uint64_t linear = 0;
  return OperandAddress(access, instruction, operand, extra, bytes, linear) &&
         access.Try(linear, bytes, intent, access.privilege());
}

bool LoadOperand(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
                 std::span<std::byte> out) noexcept {
  uint64_t linear = 0;
  return OperandAddress(access, instruction, operand, 0, out.size(), linear) &&
         access.Load(linear, out, AccessIntent::kRead, access.privilege());
}

}  // namespace vmm
