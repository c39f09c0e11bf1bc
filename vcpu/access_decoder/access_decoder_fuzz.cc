// Any bytes as an instruction, any registers, tables and protections. What must hold is checked here; the sanitizers see the
// rest. fuzz_corpus/ holds an instruction of each class, with registers that reach memory.
//
// Input: a byte of modes, a byte of which pages are refused and how, 16 bytes of code, then bytes for registers, vectors and
// tables.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = kMiB;
constexpr uint64_t kCode = 0x1ff8;  // the instruction may go on in the next page
// 16 pages of tables that lead to each other and to all of RAM.
constexpr uint64_t kTables = 0x80000;

void Require(bool holds) {
  if (!holds) std::abort();
}

class Input final {
 public:
  Input(const uint8_t* data, size_t size) noexcept : data_(data), size_(size) {}
  template <typename T>
  T Take() noexcept {
    T value{};
    const size_t bytes = std::min(sizeof(T), size_);
    // data_ may be null where nothing is left.
    if (bytes != 0) std::memcpy(&value, data_, bytes);
    data_ += bytes;
    size_ -= bytes;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

// Rights by the page's number and a pattern. Counts what is asked: an instruction's work is bounded.
class FuzzView final : public LevelView {
 public:
  explicit FuzzView(uint8_t pattern) noexcept : pattern_(pattern) {}
  [[nodiscard]] PageRights Rights(Gpfn guest_page) const noexcept override {
    // 64 vector elements or 62 components on 2 pages, at 10 entries and the page itself, are the most; pushes are far less.
    Require(++asked_ < 5000);
    if (pattern_ == 0) return PageRights();
    const uint64_t mixed = (guest_page.raw() + 1) * 0x9e37'79b9'7f4a'7c15 * pattern_;
    return PageRights(static_cast<uint8_t>(mixed >> 60));
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn guest_page) const noexcept override {
    return guest_page.raw() == 5 ? overlay_.data() : nullptr;
  }

 private:
  const uint8_t pattern_;
  mutable unsigned asked_ = 0;
  std::array<std::byte, kPageBytes> overlay_{};
};

class FuzzVectors final : public VectorState {
 public:
  explicit FuzzVectors(uint64_t seed) noexcept : seed_(seed) {}
  [[nodiscard]] bool Vector(unsigned index, std::span<std::byte, 64> out) noexcept override {
    Require(index < 32);
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(seed_ >> ((i + index) % 8 * 8));
    return true;
  }
  [[nodiscard]] bool Mask(unsigned index, uint64_t& out) noexcept override {
    Require(index < 8);
    out = seed_ << index;
    return true;
  }
  [[nodiscard]] bool Mmx(unsigned index, uint64_t& out) noexcept override {
    Require(index < 8);
    out = seed_;
    return true;
  }
  [[nodiscard]] bool XsaveComponent(unsigned index, Component& out) noexcept override {
    Require(index >= 2 && index < 63);
    out = {.offset = 576 + index * 256, .bytes = static_cast<uint32_t>(seed_ & 0x3fff), .aligned = (seed_ & 1 << 20) != 0};
    return (seed_ & 1 << 21) == 0;
  }

 private:
  const uint64_t seed_;
};

AccessSegment TakeSegment(Input& input) {
  const auto bits = input.Take<uint32_t>();
  AccessSegment segment;
  segment.base = (bits & 0xff) * 0x1000;
  segment.limit = (bits & 0x100) != 0 ? 0xffff'ffff : bits >> 12;
  segment.selector = static_cast<uint16_t>(bits >> 16);
  segment.type = bits >> 4 & 0xf;
  segment.big = (bits & 0x200) != 0;
  segment.unusable = (bits & 0x1c00) == 0x1c00;
  return segment;
}

void FillRam(const GuestMemory& memory, uint64_t state, bool recursive) {
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  for (uint64_t gpa = 0x10000; gpa < 0x12000; gpa += 8) static_cast<void>(memory.WriteObject(Gpa(gpa), next()));
  for (uint64_t gpa = 0x20000; gpa < 0x21000; gpa += 8) static_cast<void>(memory.WriteObject(Gpa(gpa), next()));
  for (uint64_t i = 0; i < 16 * 512; ++i) {
    // Mostly present. Recursive: every level is one of the tables.
    const uint64_t to = recursive ? kTables / kPageBytes + i % 16 : next() % 256;
    const uint64_t entry = to * kPageBytes | 0x67 | ((next() & 0xff) == 0 ? next() & 0xfff : 0);
    static_cast<void>(memory.WriteObject(Gpa(kTables + i * 8), entry));
  }
}

void Check(const AccessRegisters& registers, const AccessDecoding& decoding, const LevelView& view, bool event) {
  const AccessViolation& violation = decoding.violation;
  Require(violation.instruction_length <= 15 && violation.byte_count <= 16);
  Require(!event || (violation.instruction_length == 0 && violation.byte_count == 0));
  if (decoding.finding != AccessFinding::kViolation) return;
  const PageRights rights = view.Rights(violation.gpa.page());
  switch (violation.kind) {
    case AccessKind::kRead: Require(!rights.read()); break;
    case AccessKind::kWrite: Require(!rights.read() || !rights.write()); break;
    case AccessKind::kExecute:
      // Which of the two counts is the mode's; both allowed refuses nothing.
      Require(!rights.kernel_execute() || (registers.mode_based_execution && !rights.user_execute()));
      Require(!violation.page_table && violation.instruction_length == 0);
      break;
  }
  Require(violation.gva.has_value() != violation.page_table);
  if (violation.gva.has_value()) Require(*violation.gva % kPageBytes == violation.gpa.page_offset());
  if (!event && violation.kind != AccessKind::kExecute && !violation.page_table) Require(violation.instruction_length != 0);
  Require(violation.instruction_length <= violation.byte_count);
}

}  // namespace
}  // namespace vmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vmm;  // NOLINT: the entry point's name is fixed
  static const std::unique_ptr<GuestMemory> memory =
      *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), *MemoryLayout::Create(kRamBytes));
  Input input(data, size);
  const auto modes = input.Take<uint8_t>();
  const auto pattern = input.Take<uint8_t>();
  const auto code = input.Take<std::array<std::byte, 16>>();

  AccessRegisters registers;
  registers.rip = (modes & 0x40) != 0 ? kCode : 0x1000;
  registers.cpl = (modes & 0x20) != 0 ? 3 : 0;
  registers.mode_based_execution = (modes & 0x10) != 0;
  registers.table_reads_need_write = (modes & 0x80) != 0;
  registers.cs.type = 11;
  registers.cs.long_mode = (modes & 3) == 3;
  registers.cs.big = (modes & 4) != 0;
  registers.cr0 = (modes & 3) == 0 ? 0x10 : 0x8001'0031;
  if ((modes & 3) == 0 && (modes & 8) != 0) registers.cr0 |= 1;  // protected, without paging
  registers.cr4 = (modes & 3) >= 2 ? 0x20 : 0x10;
  registers.efer = (modes & 3) == 3 ? 0xd00 : 0x800;
  registers.cr3 = kTables;
  registers.xcr0 = ~uint64_t{0};
  registers.xss = ~uint64_t{0};
  registers.gdt = {0x10000, 0xffff};
  registers.idt = {0x20000, 0xffff};

  // RAM by a generator, so that descriptors and selectors are of every kind; entries lead into the tables or to any page. Made
  // again only for another seed or mode: it is most of a run's time, and nothing here writes to it.
  static uint64_t filled_for = ~uint64_t{0};
  const uint64_t seed = uint64_t{input.Take<uint32_t>()} << 8 | modes;
  if (seed != filled_for) FillRam(*memory, seed >> 8 | 1, (modes & 8) != 0);
  filled_for = seed;
  static_cast<void>(memory->Write(Gpa(registers.rip), code));

  registers.rflags = input.Take<uint32_t>() | 2;
  for (AccessSegment* segment :
       {&registers.ds, &registers.es, &registers.fs, &registers.gs, &registers.ss, &registers.tr, &registers.ldtr}) {
    *segment = TakeSegment(input);
  }
  for (uint64_t& gpr : registers.gpr) {
    const auto value = input.Take<uint32_t>();
    gpr = (value & 1 << 31) != 0 ? ~uint64_t{value} : value & 0xf'ffff;
  }
  // The code's pages are mapped where it was put.
  if ((modes & 3) == 3) {
    static_cast<void>(memory->WriteObject(Gpa(kTables), uint64_t{kTables + 0x1000} | 0x67));
    static_cast<void>(memory->WriteObject(Gpa(kTables + 0x1000), uint64_t{kTables + 0x2000} | 0x67));
    static_cast<void>(memory->WriteObject(Gpa(kTables + 0x2000), uint64_t{kTables + 0x3000} | 0x67));
    static_cast<void>(memory->WriteObject(Gpa(kTables + 0x3008), uint64_t{0x1067}));
    static_cast<void>(memory->WriteObject(Gpa(kTables + 0x3010), uint64_t{0x2067}));
  }
  FuzzVectors vectors(input.Take<uint64_t>());
  // Every instruction under three views: nothing refused, the input's pattern, and another.
  for (const uint8_t refused : {uint8_t{0}, pattern, static_cast<uint8_t>(pattern * 7 + 3)}) {
    const FuzzView view(refused);
    const AccessDecoding decoding = DecodeAccess(registers, *memory, view, vectors);
    Require(refused != 0 || decoding.finding != AccessFinding::kViolation);
    Check(registers, decoding, view, false);
    const FuzzView event_view(refused);
    const AccessEvent event{.vector = std::to_integer<uint8_t>(code[0]), .has_error_code = (modes & 1) != 0, .software = false};
    Check(registers, DecodeEventAccess(registers, event, *memory, event_view), event_view, true);
  }
  return 0;
}
