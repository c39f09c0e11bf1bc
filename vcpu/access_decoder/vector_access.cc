#include <algorithm>
#include <bit>
#include <cstring>

#include "vcpu/access_decoder/instruction.h"

namespace vmm {
namespace {

using Register512 = std::array<std::byte, 64>;

constexpr uint32_t kLegacyBytes = 512;
constexpr uint32_t kHeaderBytes = 64;
constexpr uint64_t kCompacted = uint64_t{1} << 63;
constexpr uint64_t kX87 = 1;
constexpr uint64_t kSse = 2;
constexpr uint64_t kAvx = 4;

constexpr uint64_t LowBits(unsigned count) noexcept { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

VectorOutcome Outcome(bool went_on) noexcept { return went_on ? VectorOutcome::kDone : VectorOutcome::kEnded; }

// Elements of `bytes` each, those with a bit in `mask`; neighbours are one access.
bool TryElements(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand, unsigned bytes,
                 uint64_t mask) noexcept {
  for (unsigned first = 0; mask >> first != 0;) {
    first += static_cast<unsigned>(std::countr_zero(mask >> first));
    const auto run = static_cast<unsigned>(std::countr_one(mask >> first));
    if (!TryOperand(access, instruction, operand, uint64_t{first} * bytes, uint64_t{run} * bytes, OperandIntent(operand))) {
      return false;
    }
    first += run;
    if (first >= 64) break;
  }
  return true;
}

// The top bit of each element.
uint64_t SignBits(const Register512& vector, unsigned element_bytes, unsigned count) noexcept {
  uint64_t mask = 0;
  for (unsigned i = 0; i < count && (i + 1) * element_bytes <= vector.size(); ++i) {
    const auto top = static_cast<unsigned>(vector[(i + 1) * element_bytes - 1]);
    mask |= uint64_t{top >> 7} << i;
  }
  return mask;
}

bool LoadMask(GuestAccess& access, VectorState& vectors, ZydisRegister reg, uint64_t& mask) noexcept {
  return vectors.Mask(RegisterNumber(reg) % 8, mask) ? true : access.Unknown();
}

bool LoadVector(GuestAccess& access, VectorState& vectors, ZydisRegister reg, Register512& out) noexcept {
  return vectors.Vector(RegisterNumber(reg) % 32, out) ? true : access.Unknown();
}

// Bytes of an index of a gather or scatter; 0: a prefetch of such.
unsigned IndexBytes(ZydisMnemonic mnemonic) noexcept {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VPSCATTERDD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ: return 4;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ: return 8;
    default: return 0;
  }
}

unsigned VectorBytes(ZydisRegister reg) noexcept {
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_XMM: return 16;
    case ZYDIS_REGCLASS_YMM: return 32;
    case ZYDIS_REGCLASS_ZMM: return 64;
    default: return 0;
  }
}

bool TryGather(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
               VectorState& vectors) noexcept {
  const unsigned index_bytes = IndexBytes(instruction.info.mnemonic);
  const unsigned data_bytes = operand.element_size / 8;
  if (index_bytes == 0) return true;
  // The data register: the one vector operand that is neither the index nor, with VEX, the mask behind the memory operand.
  const ZydisDecodedOperand& data = instruction.operand_list[&operand == &instruction.operand_list[0] ? 2 : 0];
  if (data.type != ZYDIS_OPERAND_TYPE_REGISTER || data_bytes == 0) return access.Unknown();
  const unsigned count = std::min(VectorBytes(data.reg.value) / data_bytes, VectorBytes(operand.mem.index) / index_bytes);

  uint64_t mask = 0;
  if (instruction.info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
    if (!LoadMask(access, vectors, instruction.info.avx.mask.reg, mask)) return false;
  } else {
    Register512 values{};
    if (!LoadVector(access, vectors, instruction.operand_list[2].reg.value, values)) return false;
    mask = SignBits(values, data_bytes, count);
  }
  mask &= LowBits(count);

  Register512 indices{};
  if (!LoadVector(access, vectors, operand.mem.index, indices)) return false;
  for (; mask != 0; mask &= mask - 1) {
    const auto i = static_cast<size_t>(std::countr_zero(mask));
    int64_t index = 0;
    if (index_bytes == 4) {
      int32_t narrow = 0;
      std::memcpy(&narrow, indices.data() + i * 4, sizeof(narrow));
      index = narrow;
    } else {
      std::memcpy(&index, indices.data() + i * 8, sizeof(index));
    }
    const uint64_t extra = static_cast<uint64_t>(index) * operand.mem.scale;
    if (!TryOperand(access, instruction, operand, extra, data_bytes, OperandIntent(operand))) return false;
  }
  return true;
}

bool IsPacking(ZydisInstructionCategory category) noexcept {
  return category == ZYDIS_CATEGORY_COMPRESS || category == ZYDIS_CATEGORY_EXPAND;
}

bool IsPacking(ZydisMnemonic mnemonic) noexcept {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW: return true;
    default: return false;
  }
}

// EVEX with a mask: elements without their bit are not accessed.
bool TryMasked(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
               VectorState& vectors) noexcept {
  uint64_t mask = 0;
  if (!LoadMask(access, vectors, instruction.info.avx.mask.reg, mask)) return false;
  const unsigned bytes = operand.size / 8;
  const unsigned element_bytes = operand.element_size / 8;
  const unsigned count = operand.element_count;
  if (IsPacking(instruction.info.meta.category) || IsPacking(instruction.info.mnemonic)) {
    const auto packed = static_cast<unsigned>(std::popcount(mask & LowBits(count)));
    return TryOperand(access, instruction, operand, 0, uint64_t{packed} * element_bytes, OperandIntent(operand));
  }
  if (count > 1 && count * element_bytes == bytes && instruction.info.avx.broadcast.mode == ZYDIS_BROADCAST_MODE_INVALID) {
    return TryElements(access, instruction, operand, element_bytes, mask & LowBits(count));
  }
  // One for all (a broadcast), or a scalar, whose bit is the lowest.
  unsigned elements = 1;
  for (const ZydisDecodedOperand& other : instruction.operands()) {
    const bool vector = other.type == ZYDIS_OPERAND_TYPE_REGISTER && VectorBytes(other.reg.value) != 0;
    if (vector && instruction.info.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
      elements = std::max<unsigned>(elements, other.element_count);
    }
  }
  if ((mask & LowBits(elements)) == 0) return true;
  return TryOperand(access, instruction, operand, 0, bytes, OperandIntent(operand));
}

// VMASKMOV: operand 1 is the mask, loading or storing.
bool TryMaskMove(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
                 VectorState& vectors) noexcept {
  Register512 values{};
  const unsigned element_bytes = operand.element_size / 8;
  if (!LoadVector(access, vectors, instruction.operand_list[1].reg.value, values)) return false;
  return TryElements(access, instruction, operand, element_bytes, SignBits(values, element_bytes, operand.element_count));
}

// MASKMOVQ and MASKMOVDQU: bytes, to DS:rDI.
bool TryByteMaskMove(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
                     VectorState& vectors) noexcept {
  Register512 values{};
  const ZydisRegister mask = instruction.operand_list[1].reg.value;
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ) {
    uint64_t value = 0;
    if (!vectors.Mmx(RegisterNumber(mask) % 8, value)) return access.Unknown();
    std::memcpy(values.data(), &value, sizeof(value));
  } else if (!LoadVector(access, vectors, mask, values)) {
    return false;
  }
  return TryElements(access, instruction, operand, 1, SignBits(values, 1, operand.size / 8));
}

// XSAVE and XRSTOR in their forms, from the lowest address on, but for the header of XRSTOR, which comes first.
class XsaveArea final {
 public:
  XsaveArea(GuestAccess& access, const Instruction& instruction, const ZydisDecodedOperand& operand,
            VectorState& vectors) noexcept
      : access_(access), instruction_(instruction), operand_(operand), vectors_(vectors) {}

  bool Save(bool compacted, bool supervisor, AccessIntent header_intent, uint64_t header_bytes) noexcept {
    const uint64_t features = Requested(supervisor);
    return CheckAlignment() && Legacy(features, AccessIntent::kWrite) &&
           TryOperand(access_, instruction_, operand_, kLegacyBytes, header_bytes, header_intent) &&
           Extended(features, compacted ? features : 0, AccessIntent::kWrite);
  }

  bool Restore(bool supervisor) noexcept {
    if (!CheckAlignment()) return false;
    uint64_t linear = 0;
    std::array<uint64_t, 2> header{};  // XSTATE_BV, XCOMP_BV
    if (!OperandAddress(access_, instruction_, operand_, kLegacyBytes, kHeaderBytes, linear)) return false;
    if (!access_.Load(linear, std::as_writable_bytes(std::span(header)), AccessIntent::kRead, access_.privilege())) return false;
    if (!access_.Try(linear, kHeaderBytes, AccessIntent::kRead, access_.privilege())) return false;
    const uint64_t requested = Requested(supervisor);
    const bool compacted = (header[1] & kCompacted) != 0;
    if (supervisor && !compacted) return access_.Fault();
    // MXCSR is loaded with SSE or AVX, whatever XSTATE_BV says, in the standard format.
    const uint64_t present = requested & header[0];
    const uint64_t legacy = present | (compacted ? 0 : requested & kAvx);
    return Legacy(legacy, AccessIntent::kRead) && Extended(present, compacted ? header[1] & ~kCompacted : 0, AccessIntent::kRead);
  }

 private:
  [[nodiscard]] uint64_t Requested(bool supervisor) const noexcept {
    const AccessRegisters& registers = access_.registers();
    const uint64_t wanted = (registers.gpr[2] << 32) | (registers.gpr[0] & 0xffff'ffff);
    return wanted & (registers.xcr0 | (supervisor ? registers.xss : 0)) & ~kCompacted;
  }

  bool CheckAlignment() noexcept {
    uint64_t linear = 0;
    if (!OperandAddress(access_, instruction_, operand_, 0, kLegacyBytes + kHeaderBytes, linear)) return false;
    return linear % 64 == 0 ? true : access_.Fault();
  }

  bool Part(uint64_t offset, uint64_t bytes, AccessIntent intent) noexcept {
    return TryOperand(access_, instruction_, operand_, offset, bytes, intent);
  }

  bool Legacy(uint64_t features, AccessIntent intent) noexcept {
    if ((features & kX87) != 0 && !Part(0, 24, intent)) return false;
    if ((features & (kSse | kAvx)) != 0 && !Part(24, 8, intent)) return false;
    if ((features & kX87) != 0 && !Part(32, 128, intent)) return false;
    return (features & kSse) == 0 || Part(160, 256, intent);
  }

  // `layout`: the components that a compacted area has room for; 0: the standard format.
  bool Extended(uint64_t features, uint64_t layout, AccessIntent intent) noexcept {
    uint64_t next = kLegacyBytes + kHeaderBytes;
    for (uint64_t rest = (layout != 0 ? layout : features) & ~(kX87 | kSse); rest != 0; rest &= rest - 1) {
      const auto index = static_cast<unsigned>(std::countr_zero(rest));
      VectorState::Component component;
      if (index > 62 || !vectors_.XsaveComponent(index, component)) return access_.Unknown();
      uint64_t offset = component.offset;
      if (layout != 0) {
        if (component.aligned) next = (next + 63) & ~uint64_t{63};
        offset = next;
        next += component.bytes;
      }
      // No component is larger than two pages (AMX tile data), whoever answers.
      if (component.bytes > 2 * kPageBytes) return access_.Unknown();
      if ((features >> index & 1) != 0 && !Part(offset, component.bytes, intent)) return false;
    }
    return true;
  }

  GuestAccess& access_;
  const Instruction& instruction_;
  const ZydisDecodedOperand& operand_;
  VectorState& vectors_;
};

}  // namespace

VectorOutcome TryVectorAccess(GuestAccess& access, const Instruction& instruction, VectorState& vectors) noexcept {
  const ZydisDecodedOperand* operand = nullptr;
  for (const ZydisDecodedOperand& candidate : instruction.operands()) {
    if (IsMemory(candidate)) operand = &candidate;
  }
  if (operand == nullptr) return VectorOutcome::kNotVector;
  if (operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB) return Outcome(TryGather(access, instruction, *operand, vectors));

  XsaveArea area(access, instruction, *operand, vectors);
  switch (instruction.info.mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: return Outcome(area.Save(false, false, AccessIntent::kUpdate, 8));
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64: return Outcome(area.Save(true, false, AccessIntent::kWrite, 16));
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64: return Outcome(area.Save(true, true, AccessIntent::kWrite, 16));
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return Outcome(area.Restore(false));
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64: return Outcome(area.Restore(true));
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: return Outcome(TryMaskMove(access, instruction, *operand, vectors));
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return Outcome(TryByteMaskMove(access, instruction, *operand, vectors));
    default: break;
  }
  const ZydisMaskMode mode = instruction.info.avx.mask.mode;
  if (instruction.info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && mode != ZYDIS_MASK_MODE_INVALID &&
      mode != ZYDIS_MASK_MODE_DISABLED && instruction.info.avx.mask.reg != ZYDIS_REGISTER_K0) {
    return Outcome(TryMasked(access, instruction, *operand, vectors));
  }
  return VectorOutcome::kNotVector;
}

}  // namespace vmm
