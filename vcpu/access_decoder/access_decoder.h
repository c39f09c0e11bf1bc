// Which memory access of an instruction a trust level's protections refuse first: for KVM_RUN that failed on guest memory and
// said little or nothing of where (docs/design.md, "Page protections: three ways to enforce, one map").
//
// Shapes   registers in (AccessRegisters), one AccessDecoding out. The instruction at RIP is fetched, decoded, and each of its
//          accesses is tried in architectural order: the pages it lies in; for every access the page-table entries on the way,
//          then the page itself.
// Threads  any; the VP's own has the registers. No state, no allocation. The guest's other processors run meanwhile.
// Trust    everything is the guest's. Work is bounded: one instruction of one iteration, at most 64 elements or components of at
//          most 2 pages each, five table loads a page.
// Errors   values: AccessFinding.
// Source   Intel SDM volumes 2 and 3; Hyper-V TLFS, "Memory Intercepts". Zydis does the decoding of bytes.
//
// Order: fetch; loads before stores, an operand that is read and written at its place among the stores; elements of a vector from
// the lowest on; in a segment load or far transfer as the SDM's operation sections have it. An operand over two pages: the first
// page, tables included, before the second. So the address of a violation is the lowest that fails, but for pushes of several
// words (the first pushed is the highest). CMPS reads DS:rSI first here; processors differ, with and without a repeat prefix.
//
// Not seen, as it comes before the access and ends it differently: #AC and #GP for alignment, protection keys, shadow stacks,
// LAM. XSAVEOPT, XSAVES and XRSTOR may leave components alone that are taken as accessed here. Task switches, VM entry
// instructions, AMX, MPX, SGX and SMM are kUnknown.
#ifndef VMM_VCPU_ACCESS_DECODER_ACCESS_DECODER_H_
#define VMM_VCPU_ACCESS_DECODER_ACCESS_DECODER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/page_rights.h"

namespace vmm {

// As kvm_segment has it.
struct AccessSegment {
  uint64_t base = 0;
  uint32_t limit = 0xffff'ffff;  // in bytes, inclusive
  uint16_t selector = 0;
  uint8_t type = 3;  // 4 bits; code or data
  bool big = false;  // D/B
  bool long_mode = false;  // L
  bool unusable = false;
};

struct AccessTable {
  uint64_t base = 0;
  uint16_t limit = 0;
};

struct AccessRegisters {
  std::array<uint64_t, 16> gpr{};  // as instructions number them: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15
  uint64_t rip = 0;
  uint64_t rflags = 2;
  AccessSegment cs, ds, es, fs, gs, ss, tr, ldtr;
  AccessTable gdt, idt;
  uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  uint64_t xcr0 = 1, xss = 0;
  uint8_t cpl = 0;

  // Of the processor that the guest has.
  uint8_t physical_bits = 52;
  bool gigabyte_pages = true;
  // User mode's fetches ask for user execution; else kernel execution decides for both. By CPL, not by the page's U/S bit.
  bool mode_based_execution = false;
  // AMD's nested paging, and Intel's with A/D bits in EPT, take every read of a page-table entry as a write too: a table that may
  // only be read then stops every walk, whether A and D are set or not. Set it where the host is such, or such a fault repeats
  // for ever with kNone as its answer.
  bool table_reads_need_write = false;
};

// Memory as the faulting level sees it, beyond RAM's bytes.
class LevelView {
 public:
  virtual ~LevelView() = default;
  // Effective: what all levels above allow, as enforced. Everything for pages of which there is nothing to protect (no RAM,
  // overlays).
  [[nodiscard]] virtual PageRights Rights(Gpfn guest_page) const noexcept = 0;
  // The 4096 bytes of the page that lies over RAM there, or nullptr.
  [[nodiscard]] virtual const std::byte* Overlay(Gpfn guest_page) const noexcept = 0;
};

// Vector registers and the layout of XSAVE's area, asked for only by instructions that depend on them. False: not to be had.
class VectorState {
 public:
  struct Component {
    uint32_t offset = 0;  // in the standard format
    uint32_t bytes = 0;
    bool aligned = false;  // to 64 bytes in the compacted format
  };

  virtual ~VectorState() = default;
  // The low 16, 32 or 64 bytes are XMM, YMM or ZMM; `index` < 32.
  [[nodiscard]] virtual bool Vector(unsigned index, std::span<std::byte, 64> out) noexcept = 0;
  [[nodiscard]] virtual bool Mask(unsigned index, uint64_t& out) noexcept = 0;  // `index` < 8
  [[nodiscard]] virtual bool Mmx(unsigned index, uint64_t& out) noexcept = 0;   // `index` < 8
  [[nodiscard]] virtual bool XsaveComponent(unsigned index, Component& out) noexcept = 0;  // 2 <= `index` < 63
};

enum class AccessFinding : uint8_t {
  kViolation,
  kNone,        // every access is permitted now: run again. Another VP may have changed the protections meanwhile
  kGuestFault,  // nothing refused before the guest's own fault (#PF, #GP, ...) ends the instruction: run again
  kUnknown,  // an instruction whose accesses are not known, or none at all. Running again may fault for ever: the caller counts
};

// The values of an intercept message's access type.
enum class AccessKind : uint8_t { kRead = 0, kWrite = 1, kExecute = 2 };

struct AccessViolation {
  Gpa gpa;  // the lowest failing byte
  std::optional<uint64_t> gva;  // linear; none for an access to a page-table entry
  AccessKind kind = AccessKind::kRead;  // of a read and write: kRead if that is refused
  bool page_table = false;
  uint8_t instruction_length = 0;  // 0: the fetch itself failed, or an event's delivery
  uint8_t byte_count = 0;
  // From RIP on, up to the end of its page, or of the next where the instruction goes on there.
  std::array<std::byte, 16> bytes{};
};

struct AccessDecoding {
  AccessFinding finding = AccessFinding::kNone;
  AccessViolation violation;  // kViolation
};

[[nodiscard]] AccessDecoding DecodeAccess(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view,
                                          VectorState& vectors) noexcept;

// The instruction at RIP, as far as who is told of it wants to know.
struct InstructionShape {
  uint8_t length = 0;  // 0: it cannot be fetched, or is none
  uint8_t byte_count = 0;  // as AccessViolation's
  std::array<std::byte, 16> bytes{};
  bool port = false;         // IN, OUT, INS, OUTS
  bool port_string = false;  // INS, OUTS
  bool port_input = false;   // IN, INS
  bool repeat = false;       // REP, of a string instruction
};
[[nodiscard]] InstructionShape DescribeInstruction(const AccessRegisters& registers, const GuestMemory& memory,
                                                   const LevelView& view) noexcept;

// What is now where the instruction at RIP would write its one memory operand, `out` bytes of it from the operand's address on; by the
// level's rights. False: it has none, or some of it cannot be read, and `out` is as it was there.
[[nodiscard]] bool LoadTarget(const AccessRegisters& registers, const GuestMemory& memory, const LevelView& view,
                              std::span<std::byte> out) noexcept;

// For a fault while an event is being delivered (KVM_GET_VCPU_EVENTS shows it injected): IDT, TSS, descriptors and stack.
struct AccessEvent {
  uint8_t vector = 0;
  bool has_error_code = false;
  bool software = false;  // INT n, INT3, INTO: the gate's DPL counts
};
[[nodiscard]] AccessDecoding DecodeEventAccess(const AccessRegisters& registers, const AccessEvent& event,
                                               const GuestMemory& memory, const LevelView& view) noexcept;

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_ACCESS_DECODER_H_
