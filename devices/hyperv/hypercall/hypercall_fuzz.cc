// Any registers, memory, XMM registers and offer: the whole dispatcher with a fake partition. What must hold is checked here; the
// sanitizers see the rest. fuzz_corpus/ holds well-formed calls of every code and form, written by hypercall_fuzz_seeds.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/hypercall/hypercall_dispatcher.h"
#include "devices/hyperv/hypercall/hypercall_fuzz_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/level_memory.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = kMiB;

void Require(bool holds) {
  if (!holds) std::abort();
}

class FuzzXmm final : public XmmAccess {
 public:
  explicit FuzzXmm(const HypercallFuzzInput& input) noexcept
      : values_(input.xmm), broken_((input.modes & kHypercallFuzzNoXmm) != 0) {}
  [[nodiscard]] bool Load(XmmRegisters& xmm) noexcept override {
    touched_ = true;
    xmm = values_;
    return !broken_;
  }
  [[nodiscard]] bool Store(const XmmRegisters& xmm) noexcept override {
    Require(touched_);
    values_ = xmm;
    return true;
  }
  [[nodiscard]] bool touched() const noexcept { return touched_; }

 private:
  XmmRegisters values_;
  const bool broken_;
  bool touched_ = false;
};

struct Machine {
  std::unique_ptr<GuestMemory> memory =
      *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), *MemoryLayout::Create(kRamBytes));
  const LevelMemory level_memory{*memory};
  // What the RAM held before the call: zeroes but for an input's contents. Kept in step: a copy for each call would cost most.
  std::unique_ptr<std::byte[]> before = std::make_unique<std::byte[]>(kRamBytes);
  FakeHypercallServices services;
};

// Bytes of memory. A block that is not RAM, or not in one page, is none: nothing may be written there.
struct Window {
  uint64_t start = 0;
  uint64_t bytes = 0;
};

Window BlockAt(uint64_t gpa, uint64_t bytes) {
  const bool good = gpa < kRamBytes && gpa % kHypercallParameterAlignment == 0 && bytes <= kPageBytes - gpa % kPageBytes;
  return good ? Window{gpa, bytes} : Window{};
}

// The bytes that a call may write: its output, and only in the memory form.
Window OutputWindow(const HypercallRegisters& registers, HypercallInput input) {
  const HypercallRow* const row = FindHypercall(input.code());
  if (row == nullptr || input.fast()) return {};
  const uint64_t gpa = registers.long_mode ? registers.r8 : registers.rdi << 32 | (registers.rsi & 0xffff'ffff);
  const uint64_t bytes = row->output_bytes + uint64_t{input.rep_count()} * row->output_element_bytes;
  return BlockAt(gpa, bytes);
}

// A call may be made with these parameters, as far as their size and place go. True for codes that there are not.
bool IsInputInPlace(const HypercallRegisters& registers, HypercallInput input) {
  const HypercallRow* const row = FindHypercall(input.code());
  if (row == nullptr) return true;
  const uint64_t bytes =
      row->header_bytes + input.variable_header_bytes() + uint64_t{input.rep_count()} * row->input_element_bytes;
  if (input.fast()) return bytes <= kHypercallFastBytes;
  const uint64_t gpa = registers.long_mode ? registers.rdx : registers.rbx << 32 | (registers.rcx & 0xffff'ffff);
  return bytes == 0 || BlockAt(gpa, bytes).bytes == bytes;
}

void Put(Machine& m, uint64_t at, std::span<const std::byte> bytes) {
  Require(m.memory->Write(Gpa(at), bytes));
  if (!bytes.empty()) std::memcpy(m.before.get() + at, bytes.data(), bytes.size());
}

void Clear(Machine& m, uint64_t at, uint64_t bytes) {
  Require(m.memory->Fill(Gpa(at), std::byte{0}, bytes));
  std::memset(m.before.get() + at, 0, bytes);
}

bool IsUnchangedOutside(const Machine& m, const Window& window) {
  const std::byte* const now = m.memory->UnsafeHost(Gpa(0), kRamBytes);
  const uint64_t end = window.start + window.bytes;
  return std::memcmp(now, m.before.get(), window.start) == 0 &&
         std::memcmp(now + end, m.before.get() + end, kRamBytes - end) == 0;
}

HypercallInput InputValue(const HypercallRegisters& registers) {
  return HypercallInput(registers.long_mode ? registers.rcx : registers.rdx << 32 | (registers.rax & 0xffff'ffff));
}

void CheckServices(const FakeHypercallServices& services, Vtl caller) {
  for (const auto& interrupt : services.partition.interrupts) {
    Require(interrupt.vp.raw() < services.partition.count && interrupt.vector >= 16);
  }
  for (const auto& posted : services.posted) {
    Require(posted.message.header.payload_size <= kHvMessagePayloadBytes);
    Require(posted.message.header.type != HvMessageType::kNone && !IsHypervisorMessage(posted.message.header.type));
  }
  for (const auto& access : services.got) Require(access.vp.raw() < services.partition.count && access.vtl <= caller);
  for (const auto& access : services.set) Require(access.vp.raw() < services.partition.count && access.vtl <= caller);
  for (const auto& started : services.started) Require(started.vp.raw() < services.partition.count && started.vtl <= caller);
  for (const auto& enabled : services.levels.enabled) Require(enabled.vp.raw() < services.partition.count);
  for (const auto& page : services.levels.pages) Require(page.owner != kVtl0 && page.owner <= caller);
  for (const auto& translated : services.levels.translated) {
    Require(translated.vp.raw() < services.partition.count && translated.vtl <= caller);
    Require((translated.flags & ~kHvTranslateKnown) == 0 && (translated.flags & kHvTranslateValidate) != 0);
  }
  for (const auto& asserted : services.levels.asserted) {
    Require(asserted.vtl < caller && (asserted.interrupt.nmi || asserted.interrupt.vector >= 16));
  }
  Require(services.levels.ports.empty() || caller != kVtl0);
}

// One execution; true: to be made again.
bool Step(Machine& m, HypercallDispatcher& dispatcher, Vtl caller, FuzzXmm& xmm, HypercallRegisters& registers) {
  const HypercallRegisters before = registers;
  const HypercallInput input = InputValue(before);
  const Window window = OutputWindow(before, input);
  m.services.Forget();
  const HypercallOutcome outcome = dispatcher.Dispatch(registers, xmm);

  Require(IsUnchangedOutside(m, outcome == HypercallOutcome::kUndefinedOpcode ? Window{} : window));
  std::memcpy(m.before.get() + window.start, m.memory->UnsafeHost(Gpa(0), kRamBytes) + window.start, window.bytes);
  CheckServices(m.services, caller);
  Require(registers.rbx == before.rbx && registers.rsi == before.rsi && registers.rdi == before.rdi);
  Require(input.fast() || !xmm.touched());
  if (before.long_mode) {
    Require(input.fast() || (registers.rdx == before.rdx && registers.r8 == before.r8));
  } else {
    Require(registers.rcx == before.rcx && registers.r8 == before.r8);
  }
  switch (outcome) {
    case HypercallOutcome::kDone: {
      const uint64_t result = before.long_mode ? registers.rax : registers.rdx << 32 | registers.rax;
      Require((result & 0xffff'f000'ffff'0000) == 0);
      Require(!before.long_mode || registers.rcx == before.rcx);
      const uint64_t reps = result >> 32;
      Require(reps <= input.rep_count());
      const bool success = (result & 0xffff) == static_cast<uint64_t>(HvStatus::kSuccess);
      Require(!success || (reps == input.rep_count() && IsInputInPlace(before, input)));
      Require(before.cpl == 0 && before.protected_mode);
      return false;
    }
    case HypercallOutcome::kAgain: {
      const HypercallInput next = InputValue(registers);
      Require(next.rep_start() > input.rep_start() && next.rep_start() < input.rep_count());
      Require(IsInputInPlace(before, input));
      Require(next.raw() == input.WithRepStart(next.rep_start()).raw());
      Require(!before.long_mode || registers.rax == before.rax);
      return true;
    }
    case HypercallOutcome::kBlocked:
      Require(m.services.levels.tlb_locked && m.services.partition.flushes == 0);
      [[fallthrough]];
    case HypercallOutcome::kSwitchVtl:
    case HypercallOutcome::kUndefinedOpcode:
      Require(registers.rax == before.rax && registers.rcx == before.rcx && registers.rdx == before.rdx);
      return false;
    case HypercallOutcome::kNotOffered:
      std::abort();
  }
  return false;
}

void Fuzz(std::span<const uint8_t> data) {
  static Machine& m = *new Machine;
  HypercallFuzzInput input{};
  const size_t fixed = std::min(data.size(), sizeof(input));
  std::memcpy(&input, data.data(), fixed);
  const std::span<const uint8_t> contents = data.subspan(fixed).first(std::min(data.size() - fixed, size_t{2 * kPageBytes}));
  Put(m, kHypercallFuzzMemory.raw(), std::as_bytes(contents));

  m.services.partition.count = input.vp_count % 256 + 1;
  m.services.answer = HvStatus(input.answer);
  m.services.has_vsm = true;  // as far as it is offered
  m.services.levels.answer = HvStatus(input.answer);
  m.services.levels.may_switch = input.answer == 0;
  m.services.levels.tlb_locked = (input.modes & kHypercallFuzzLocked) != 0;
  const Vtl caller = (input.modes & kHypercallFuzzVtl1) != 0 ? kVtl1 : kVtl0;
  HypercallRegisters registers{.rax = input.rax, .rbx = input.rbx, .rcx = input.rcx, .rdx = input.rdx, .rsi = input.rsi,
                               .rdi = input.rdi, .r8 = input.r8, .long_mode = (input.modes & kHypercallFuzzNot64) == 0,
                               .protected_mode = (input.modes & kHypercallFuzzRealMode) == 0,
                               .cpl = static_cast<uint8_t>(input.modes & kHypercallFuzzCplMask)};
  // The same at each execution.
  const Window window = OutputWindow(registers, InputValue(registers));
  FuzzXmm xmm(input);
  const HvOffer offer{.privileges = input.privileges, .features = input.features};
  const VpIndex vp(input.vp_count / 256 % m.services.partition.count);
  HypercallDispatcher dispatcher(vp, caller, offer, m.level_memory, m.services);
  // Each execution completes an element at least.
  for (int executions = 0; Step(m, dispatcher, caller, xmm, registers); ++executions) {
    Require(executions < HypercallInput::kRepMask);
  }
  Clear(m, kHypercallFuzzMemory.raw(), 2 * kPageBytes);
  Clear(m, window.start, window.bytes);
}

}  // namespace
}  // namespace vmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmm::Fuzz(std::span(data, size));
  return 0;
}
