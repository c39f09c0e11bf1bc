// What a change of protections costs, without and with a processor's part in it (there is no VM here: KVM's notifier adds to each
// system call what it takes to make its processors leave the guest).
//
// protect and unprotect: one page, again and again; a range of pages in a row; every other page. LevelMemory: a checked copy beside
// a plain one.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "memory/withdrawn_pages.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 256 * kMiB;
constexpr uint64_t kFirst = 0x1000;

struct Machine {
  // With devices that have RAM, what is protected moves out of their reach and back.
  explicit Machine(bool devices = false) {
    const auto layout = *MemoryLayout::Create(kRamBytes);
    const auto ram = *GuestRam::Create({.bytes = kRamBytes, .prefault = true, .withdrawable = devices});
    memory = *GuestMemory::Create(*ram, layout);
    view = *GuestView::Create(*ram, layout, 0, GuestView::kMaxProtectedPieces);
    if (devices) {
      upper_view = *GuestView::Create(*ram, layout, 0);
      withdrawn = *WithdrawnPages::Create(*ram, layout, *memory, {view.get(), upper_view.get()}, 0);
    }
    map = *ProtectionMap::Create(layout, 2);
    enforcer = *ProtectionEnforcer::Create(*map, {view.get()}, Unenforceable::kRefuse, withdrawn.get());
  }
  void Protect(PageRights rights, const std::vector<uint64_t>& pages) {
    if (enforcer->Protect(1, rights, pages).status != ProtectStatus::kDone) std::abort();
  }
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<GuestView> view, upper_view;
  std::unique_ptr<WithdrawnPages> withdrawn;
  std::unique_ptr<ProtectionMap> map;
  std::unique_ptr<ProtectionEnforcer> enforcer;
};

std::vector<uint64_t> Pages(uint64_t count, uint64_t step) {
  std::vector<uint64_t> pages;
  for (uint64_t n = 0; n < count; ++n) pages.push_back(kFirst + n * step);
  return pages;
}

// As a hypercall lists them, up to 510 at once. The time is of one protect and one unprotect, per page.
void ProtectAndBack(benchmark::State& state, uint64_t step, bool devices) {
  Machine machine(devices);
  const auto pages = Pages(static_cast<uint64_t>(state.range(0)), step);
  for ([[maybe_unused]] auto _ : state) {
    machine.Protect(PageRights::None(), pages);
    machine.Protect(PageRights(), pages);
  }
  const auto changed = static_cast<double>(state.iterations()) * 2 * static_cast<double>(pages.size());
  state.counters["pages"] = benchmark::Counter(changed, benchmark::Counter::kIsRate);
  state.counters["runs/page"] = static_cast<double>(machine.enforcer->stats().runs) / changed;
}
BENCHMARK_CAPTURE(ProtectAndBack, in_a_row, 1, false)->Arg(1)->Arg(16)->Arg(128)->Arg(510)->UseRealTime();
BENCHMARK_CAPTURE(ProtectAndBack, in_a_row_beside_devices, 1, true)->Arg(1)->Arg(16)->Arg(128)->Arg(510)->UseRealTime();
BENCHMARK_CAPTURE(ProtectAndBack, every_other, 2, false)->Arg(16)->Arg(128)->Arg(510)->UseRealTime();
BENCHMARK_CAPTURE(ProtectAndBack, every_other_beside_devices, 2, true)->Arg(16)->Arg(128)->Arg(510)->UseRealTime();

// The same with thousands of other pieces in the view.
void ProtectAmongPieces(benchmark::State& state) {
  Machine machine;
  std::vector<uint64_t> others;
  for (int64_t n = 0; n < state.range(0); ++n) others.push_back(0x2000 + static_cast<uint64_t>(n) * 2);
  machine.Protect(PageRights(0xd), others);
  const auto pages = Pages(1, 1);
  for ([[maybe_unused]] auto _ : state) {
    machine.Protect(PageRights::None(), pages);
    machine.Protect(PageRights(), pages);
  }
}
BENCHMARK(ProtectAmongPieces)->Arg(0)->Arg(1000)->Arg(16000)->UseRealTime();

void CopyChecked(benchmark::State& state) {
  Machine machine;
  const LevelMemory level(*machine.memory, *machine.map, machine.enforcer->gate(), 0);
  std::array<std::byte, 64> bytes;
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(level.Read(Gpa(Gpfn(kFirst)), bytes));
}
BENCHMARK(CopyChecked);

void CopyPlain(benchmark::State& state) {
  Machine machine;
  std::array<std::byte, 64> bytes;
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(machine.memory->Read(Gpa(Gpfn(kFirst)), bytes));
}
BENCHMARK(CopyPlain);

}  // namespace
}  // namespace vmm
