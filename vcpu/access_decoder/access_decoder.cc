#include "vcpu/access_decoder/access_decoder.h"

#include <algorithm>
#include <cstring>

#include <Zydis/Zydis.h>

#include "vcpu/access_decoder/guest_access.h"
#include "vcpu/access_decoder/instruction.h"
#include "vcpu/access_decoder/system_access.h"

namespace vmm {
namespace {

constexpr size_t kMaxLength = ZYDIS_MAX_INSTRUCTION_LENGTH;

class Decoder final {
 public:
  Decoder(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view, VectorState& vectors) noexcept
      : registers_(registers), access_(registers, memory, view), vectors_(vectors) {}

  AccessDecoding Run() noexcept {
    if (Fetch()) {
      access_.result().violation.instruction_length = instruction_.info.length;
      // Its answer is in the result.
      static_cast<void>(Try());
    }
    access_.result().violation.byte_count = static_cast<uint8_t>(fetched_);
    return access_.result();
  }

  InstructionShape Describe() noexcept {
    constexpr ZydisInstructionAttributes kRepeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    InstructionShape shape;
    const bool known = Fetch();
    shape.byte_count = static_cast<uint8_t>(fetched_);
    shape.bytes = access_.result().violation.bytes;
    if (!known) return shape;
    const ZydisDecodedInstruction& info = instruction_.info;
    const bool string = info.meta.category == ZYDIS_CATEGORY_STRINGOP || info.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    shape.length = info.length;
    shape.port = info.meta.category == ZYDIS_CATEGORY_IOSTRINGOP || info.mnemonic == ZYDIS_MNEMONIC_IN ||
                 info.mnemonic == ZYDIS_MNEMONIC_OUT;
    shape.port_string = info.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    shape.port_input = info.mnemonic == ZYDIS_MNEMONIC_IN || info.mnemonic == ZYDIS_MNEMONIC_INSB ||
                       info.mnemonic == ZYDIS_MNEMONIC_INSW || info.mnemonic == ZYDIS_MNEMONIC_INSD;
    shape.repeat = string && (info.attributes & kRepeats) != 0;
    return shape;
  }

  bool LoadTarget(std::span<std::byte> out) noexcept {
    if (!Fetch()) return false;
    for (const ZydisDecodedOperand& operand : instruction_.operands()) {
      if (!IsMemory(operand) || operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || OperandIntent(operand) != AccessIntent::kWrite) continue;
      return LoadOperand(access_, instruction_, operand, out);
    }
    return false;
  }

 private:
  // The bytes at RIP, the next page's only if the instruction goes on there.
  bool Fetch() noexcept {
    if (!FetchUpTo(kPageBytes - FetchLinear(0) % kPageBytes)) return false;
    ZyanStatus status = Decode();
    if (status == ZYDIS_STATUS_NO_MORE_DATA && fetched_ < kMaxLength) {
      if (!FetchUpTo(sizeof(access_.result().violation.bytes))) return false;
      status = Decode();
    }
    if (ZYAN_SUCCESS(status)) return true;
    return status == ZYDIS_STATUS_NO_MORE_DATA ? access_.Fault() : access_.Unknown();  // behind CS's limit
  }

  [[nodiscard]] uint64_t FetchLinear(uint64_t from) const noexcept {
    const uint64_t offset = registers_.rip + from;
    return access_.code64() ? offset : (registers_.cs.base + (offset & 0xffff'ffff)) & 0xffff'ffff;
  }

  bool FetchUpTo(uint64_t end) noexcept {
    std::array<std::byte, 16>& bytes = access_.result().violation.bytes;
    end = std::min<uint64_t>(end, bytes.size());
    if (!access_.code64()) {
      const uint64_t rip = registers_.rip & 0xffff'ffff;
      if (rip > registers_.cs.limit) return access_.Fault();
      end = std::min<uint64_t>(end, registers_.cs.limit - rip + 1);
    }
    if (end <= fetched_) return true;
    if (!access_.Load(FetchLinear(fetched_), std::span(bytes).subspan(fetched_, end - fetched_), AccessIntent::kExecute,
                      access_.privilege())) {
      return false;
    }
    fetched_ = end;
    return true;
  }

  ZyanStatus Decode() noexcept {
    const bool compatible = access_.long_mode();
    const bool big = registers_.cs.big && !access_.virtual_8086();
    const ZydisMachineMode mode = access_.code64()              ? ZYDIS_MACHINE_MODE_LONG_64
                                  : access_.real_mode() && !big ? ZYDIS_MACHINE_MODE_REAL_16
                                  : big ? (compatible ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LEGACY_32)
                                        : (compatible ? ZYDIS_MACHINE_MODE_LONG_COMPAT_16 : ZYDIS_MACHINE_MODE_LEGACY_16);
    const ZydisStackWidth stack = access_.code64()     ? ZYDIS_STACK_WIDTH_64
                                  : registers_.ss.big ? ZYDIS_STACK_WIDTH_32
                                                       : ZYDIS_STACK_WIDTH_16;
    ZydisDecoder decoder;
    ZyanStatus status = ZydisDecoderInit(&decoder, mode, stack);
    if (!ZYAN_SUCCESS(status)) return status;
    return ZydisDecoderDecodeFull(&decoder, access_.result().violation.bytes.data(), std::min<size_t>(fetched_, kMaxLength),
                                  &instruction_.info, instruction_.operand_list.data());
  }

  bool Try() noexcept {
    const ZydisDecodedInstruction& info = instruction_.info;
    switch (info.meta.category) {
      case ZYDIS_CATEGORY_PREFETCH:
      case ZYDIS_CATEGORY_PREFETCHWT1:
      case ZYDIS_CATEGORY_NOP:
      case ZYDIS_CATEGORY_WIDENOP:
      case ZYDIS_CATEGORY_CLDEMOTE: return true;
      case ZYDIS_CATEGORY_AMX_TILE:
      case ZYDIS_CATEGORY_CET:
      case ZYDIS_CATEGORY_ENQCMD:
      case ZYDIS_CATEGORY_MPX:
      case ZYDIS_CATEGORY_PADLOCK:
      case ZYDIS_CATEGORY_PCONFIG:
      case ZYDIS_CATEGORY_SGX:
      case ZYDIS_CATEGORY_UINTR: return access_.Unknown();
      case ZYDIS_CATEGORY_VTX: return info.mnemonic == ZYDIS_MNEMONIC_VMCALL ? true : access_.Unknown();
      case ZYDIS_CATEGORY_STRINGOP: return IsFinishedRepeat() || TryOperands();
      case ZYDIS_CATEGORY_IOSTRINGOP:
      case ZYDIS_CATEGORY_IO: return TryPorts();
      default: break;
    }
    switch (info.mnemonic) {
      case ZYDIS_MNEMONIC_INVLPG:
      case ZYDIS_MNEMONIC_INVLPGA: return true;
      case ZYDIS_MNEMONIC_RSM:
      case ZYDIS_MNEMONIC_SKINIT:
      case ZYDIS_MNEMONIC_UMONITOR:
      case ZYDIS_MNEMONIC_VMLOAD:
      case ZYDIS_MNEMONIC_VMRUN:
      case ZYDIS_MNEMONIC_VMSAVE: return access_.Unknown();
      case ZYDIS_MNEMONIC_MONITOR:
      case ZYDIS_MNEMONIC_MONITORX: return TryAtAccumulator(1, AccessIntent::kRead);
      case ZYDIS_MNEMONIC_CLZERO: return TryAtAccumulator(64, AccessIntent::kWrite);
      case ZYDIS_MNEMONIC_CLFLUSH:
      case ZYDIS_MNEMONIC_CLFLUSHOPT:
      case ZYDIS_MNEMONIC_CLWB: return TryOperand(access_, instruction_, instruction_.operand_list[0], 0, 1, AccessIntent::kRead);
      case ZYDIS_MNEMONIC_BT:
      case ZYDIS_MNEMONIC_BTC:
      case ZYDIS_MNEMONIC_BTR:
      case ZYDIS_MNEMONIC_BTS: return TryBit();
      case ZYDIS_MNEMONIC_MOVDIR64B: return TryMoveLine();
      case ZYDIS_MNEMONIC_ENTER: return TryEnter();
      case ZYDIS_MNEMONIC_PUSHA:
      case ZYDIS_MNEMONIC_PUSHAD: return AccessStack(access_).Push(instruction_.operand_bytes(), 8);
      case ZYDIS_MNEMONIC_POPA:
      case ZYDIS_MNEMONIC_POPAD: return TryPopAll();
      case ZYDIS_MNEMONIC_MOV:
      case ZYDIS_MNEMONIC_POP: return TrySegmentMove();
      case ZYDIS_MNEMONIC_LDS:
      case ZYDIS_MNEMONIC_LES:
      case ZYDIS_MNEMONIC_LFS:
      case ZYDIS_MNEMONIC_LGS: return TryLoadPointer(SegmentLoad::kData);
      case ZYDIS_MNEMONIC_LSS: return TryLoadPointer(SegmentLoad::kStack);
      case ZYDIS_MNEMONIC_LLDT: return WithSelector(0, TryLoadLocalTable);
      case ZYDIS_MNEMONIC_LTR: return WithSelector(0, TryLoadTask);
      case ZYDIS_MNEMONIC_VERR:
      case ZYDIS_MNEMONIC_VERW: return WithSelector(0, TryInspect);
      case ZYDIS_MNEMONIC_LAR:
      case ZYDIS_MNEMONIC_LSL: return WithSelector(1, TryInspect);
      case ZYDIS_MNEMONIC_CALL:
      case ZYDIS_MNEMONIC_JMP:
        if (info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return TryFarTransfer(info.mnemonic == ZYDIS_MNEMONIC_CALL);
        break;
      case ZYDIS_MNEMONIC_RET:
        if (info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
          return TryFarReturn(access_, instruction_.operand_bytes(), ImmediateOr(0, 0));
        }
        break;
      case ZYDIS_MNEMONIC_IRET:
      case ZYDIS_MNEMONIC_IRETD:
      case ZYDIS_MNEMONIC_IRETQ: return TryInterruptReturn(access_, instruction_.operand_bytes());
      case ZYDIS_MNEMONIC_INT: return TryEvent(access_, {.vector = static_cast<uint8_t>(ImmediateOr(0, 0)), .software = true});
      case ZYDIS_MNEMONIC_INT1: return TryEvent(access_, {.vector = 1});
      case ZYDIS_MNEMONIC_INT3: return TryEvent(access_, {.vector = 3, .software = true});
      case ZYDIS_MNEMONIC_INTO: return (registers_.rflags >> 11 & 1) == 0 || TryEvent(access_, {.vector = 4, .software = true});
      default: break;
    }
    switch (TryVectorAccess(access_, instruction_, vectors_)) {
      case VectorOutcome::kNotVector: return TryOperands();
      case VectorOutcome::kDone: return true;
      case VectorOutcome::kEnded: return false;
    }
    return true;
  }

  // Loads, then stores, each in the order that the instruction has them.
  bool TryOperands() noexcept { return TryOperands(AccessIntent::kRead) && TryOperands(AccessIntent::kWrite); }
  bool TryOperands(AccessIntent pass) noexcept {
    for (const ZydisDecodedOperand& operand : instruction_.operands()) {
      if (!IsMemory(operand)) continue;
      if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM) return access_.Unknown();
      const AccessIntent intent = OperandIntent(operand);
      if ((intent == AccessIntent::kRead) != (pass == AccessIntent::kRead)) continue;
      if (!TryOperand(access_, instruction_, operand, 0, operand.size / 8, intent)) return false;
    }
    return true;
  }

  // The immediate operand number `index`, among immediates.
  [[nodiscard]] unsigned ImmediateOr(unsigned index, unsigned otherwise) const noexcept {
    for (const ZydisDecodedOperand& operand : instruction_.operands()) {
      if (operand.type != ZYDIS_OPERAND_TYPE_IMMEDIATE) continue;
      if (index-- == 0) return static_cast<unsigned>(operand.imm.value.u & 0xffff);
    }
    return otherwise;
  }

  [[nodiscard]] bool IsFinishedRepeat() const noexcept {
    constexpr ZydisInstructionAttributes kRepeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    if ((instruction_.info.attributes & kRepeats) == 0) return false;
    const unsigned width = instruction_.info.address_width;
    return (width == 64 ? registers_.gpr[1] : registers_.gpr[1] & ((uint64_t{1} << width) - 1)) == 0;
  }

  bool TryPorts() noexcept {
    const bool string = instruction_.info.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    const auto port = static_cast<uint16_t>(ImmediateOr(0, static_cast<unsigned>(registers_.gpr[2] & 0xffff)));
    if (!TryPortPermission(access_, port, std::min(instruction_.operand_bytes(), 4u))) return false;
    return !string || IsFinishedRepeat() || TryOperands();
  }

  // DS:rAX, or another segment that a prefix names.
  bool TryAtAccumulator(uint64_t bytes, AccessIntent intent) noexcept {
    const ZydisInstructionAttributes attributes = instruction_.info.attributes;
    const AccessSegment* segment = &registers_.ds;
    if ((attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) != 0) segment = &registers_.fs;
    if ((attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) != 0) segment = &registers_.gs;
    if (!access_.code64()) {
      if ((attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) != 0) segment = &registers_.cs;
      if ((attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS) != 0) segment = &registers_.ss;
      if ((attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES) != 0) segment = &registers_.es;
    }
    const bool flat = segment != &registers_.fs && segment != &registers_.gs;
    const unsigned width = instruction_.info.address_width;
    uint64_t offset = width == 64 ? registers_.gpr[0] : registers_.gpr[0] & ((uint64_t{1} << width) - 1);
    offset &= ~(bytes - 1);
    uint64_t linear = 0;
    return access_.Resolve(*segment, flat, offset, bytes, linear) && access_.Try(linear, bytes, intent, access_.privilege());
  }

  // A bit offset in a register reaches beyond the operand, to both sides.
  bool TryBit() noexcept {
    const ZydisDecodedOperand& target = instruction_.operand_list[0];
    if (!IsMemory(target)) return true;
    const ZydisDecodedOperand& bit = instruction_.operand_list[1];
    const unsigned bytes = target.size / 8;
    int64_t words = 0;
    if (bit.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const unsigned unused = 64 - bit.size;
      const uint64_t value = RegisterValue(access_, instruction_, bit.reg.value);
      words = (static_cast<int64_t>(value << unused) >> unused) >> (bytes == 8 ? 6 : bytes == 4 ? 5 : 4);
    }
    return TryOperand(access_, instruction_, target, static_cast<uint64_t>(words) * bytes, bytes, OperandIntent(target));
  }

  // 64 bytes from the memory operand to ES and a register.
  bool TryMoveLine() noexcept {
    const unsigned width = instruction_.info.address_width;
    const uint64_t to = RegisterValue(access_, instruction_, instruction_.operand_list[0].reg.value);
    uint64_t linear = 0;
    return TryOperand(access_, instruction_, instruction_.operand_list[1], 0, 64, AccessIntent::kRead) &&
           access_.Resolve(registers_.es, true, width == 64 ? to : to & ((uint64_t{1} << width) - 1), 64, linear) &&
           access_.Try(linear, 64, AccessIntent::kWrite, access_.privilege());
  }

  bool TryEnter() noexcept {
    const unsigned bytes = instruction_.operand_bytes();
    const unsigned level = ImmediateOr(1, 0) % 32;
    AccessStack stack(access_);
    if (!stack.Push(bytes)) return false;
    uint64_t frame = registers_.gpr[5];
    for (unsigned i = 1; i < level; ++i) {
      frame -= bytes;
      if (!stack.Peek(frame, bytes) || !stack.Push(bytes)) return false;
    }
    if (level != 0 && !stack.Push(bytes)) return false;
    // The new top of the stack is tried, so that what comes next does not fault half-way.
    stack.Skip(uint64_t{0} - ImmediateOr(0, 0));
    return stack.Probe();
  }

  bool TryPopAll() noexcept {
    AccessStack stack(access_);
    for (int i = 0; i < 8; ++i) {
      if (!stack.Pop(instruction_.operand_bytes())) return false;
    }
    return true;
  }

  // MOV and POP, to a segment register or not.
  bool TrySegmentMove() noexcept {
    const ZydisDecodedOperand& target = instruction_.operand_list[0];
    const bool segment = target.type == ZYDIS_OPERAND_TYPE_REGISTER &&
                         ZydisRegisterGetClass(target.reg.value) == ZYDIS_REGCLASS_SEGMENT;
    if (!segment) return TryOperands();
    const SegmentLoad kind = target.reg.value == ZYDIS_REGISTER_SS ? SegmentLoad::kStack : SegmentLoad::kData;
    uint64_t selector = 0;
    if (instruction_.info.mnemonic == ZYDIS_MNEMONIC_POP) {
      AccessStack stack(access_);
      if (!stack.Pop(instruction_.operand_bytes(), &selector)) return false;
    } else if (!LoadSelector(1, selector)) {
      return false;
    }
    return TryLoadSegment(access_, static_cast<uint16_t>(selector), kind);
  }

  // The 16-bit operand number `index`, a register or memory.
  bool LoadSelector(unsigned index, uint64_t& selector) noexcept {
    const ZydisDecodedOperand& operand = instruction_.operand_list[index];
    if (!IsMemory(operand)) {
      selector = RegisterValue(access_, instruction_, operand.reg.value) & 0xffff;
      return true;
    }
    return LoadOperand(access_, instruction_, operand, std::as_writable_bytes(std::span(&selector, 1)).first(2));
  }

  bool WithSelector(unsigned index, bool (*then)(GuestAccess&, uint16_t) noexcept) noexcept {
    uint64_t selector = 0;
    return LoadSelector(index, selector) && then(access_, static_cast<uint16_t>(selector));
  }

  // A far pointer in memory: the offset, then the selector.
  bool LoadFarPointer(const ZydisDecodedOperand& operand, uint16_t& selector) noexcept {
    std::array<std::byte, 10> bytes{};
    const size_t size = operand.size / 8;
    if (size > bytes.size() || size < 4) return access_.Unknown();
    if (!LoadOperand(access_, instruction_, operand, std::span(bytes).first(size))) return false;
    std::memcpy(&selector, bytes.data() + size - 2, sizeof(selector));
    return true;
  }

  bool TryLoadPointer(SegmentLoad kind) noexcept {
    uint16_t selector = 0;
    return LoadFarPointer(instruction_.operand_list[1], selector) && TryLoadSegment(access_, selector, kind);
  }

  bool TryFarTransfer(bool call) noexcept {
    const ZydisDecodedOperand& target = instruction_.operand_list[0];
    uint16_t selector = 0;
    if (target.type == ZYDIS_OPERAND_TYPE_POINTER) {
      selector = target.ptr.segment;
    } else if (!LoadFarPointer(target, selector)) {
      return false;
    }
    return call ? TryFarCall(access_, selector, instruction_.operand_bytes()) : TryFarJump(access_, selector);
  }

  const AccessRegisters& registers_;
  GuestAccess access_;
  VectorState& vectors_;
  Instruction instruction_{};
  size_t fetched_ = 0;
};

}  // namespace

AccessDecoding DecodeAccess(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view,
                            VectorState& vectors) noexcept {
  return Decoder(registers, memory, view, vectors).Run();
}

namespace {

// For decodings that look at no vector register.
class NoVectors final : public VectorState {
 public:
  [[nodiscard]] bool Vector(unsigned, std::span<std::byte, 64>) noexcept override { return false; }
  [[nodiscard]] bool Mask(unsigned, uint64_t&) noexcept override { return false; }
  [[nodiscard]] bool Mmx(unsigned, uint64_t&) noexcept override { return false; }
  [[nodiscard]] bool XsaveComponent(unsigned, Component&) noexcept override { return false; }
};

}  // namespace

InstructionShape DescribeInstruction(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view) noexcept {
  NoVectors none;
  return Decoder(registers, memory, view, none).Describe();
}

bool LoadTarget(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view,
                std::span<std::byte> out) noexcept {
  NoVectors none;
  return Decoder(registers, memory, view, none).LoadTarget(out);
}

AccessDecoding DecodeEventAccess(const AccessRegisters& registers, const AccessEvent& event, const GuestMemory& memory,
                                 const LevelView& view) noexcept {
  GuestAccess access(registers, memory, view);
  // Its answer is in the result.
  static_cast<void>(TryEvent(access, event));
  return access.result();
}

}  // namespace vmm
