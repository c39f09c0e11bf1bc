#include "vmm/hyperv/access_intercepts.h"

#include <algorithm>
#include <cstring>

#include "devices/hyperv/vsm/msr_intercepts.h"
#include "vmm/hyperv/enforced_view.h"
#include "vmm/hyperv/string_targets.h"
#include "vmm/hyperv/vcpu_state.h"

namespace vmm {
namespace {

void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

HvInterceptAccess AccessOf(bool write) noexcept { return write ? HvInterceptAccess::kWrite : HvInterceptAccess::kRead; }

}  // namespace

InterceptedState AccessIntercepts::State(const InstructionShape& shape) noexcept {
  InterceptedState state = InterceptedStateOf(environment_.processor.vcpu(vtl_.raw()), vp_, vtl_);
  state.instruction_length = shape.length;
  return state;
}

void AccessIntercepts::Tell(Synic& synic, const HvMessage& message) noexcept {
  // One is on its way already only where the level has been given no chance to take it: it will.
  (void)synic.PostIntercept(Poster::OfVp(vp_), Sint::Of<0>(), message);
  environment_.scheduler.SuspendForIntercept();
}

bool AccessIntercepts::OnMsr(uint32_t msr, bool write) noexcept {
  const auto event = CrEventOf(msr, write);
  if (!event) return false;
  Synic* const synic = SynicOf(environment_.scheduler.vsm().FindCrIntercept(vtl_, *event, 0, 0));
  if (synic == nullptr) return false;
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
  const AccessRegisters registers = AccessRegistersOf(environment_.processor.vcpu(vtl_.raw()));
  const InstructionShape shape = DescribeInstruction(registers, environment_.memory, view);
  Tell(*synic, MakeMsrIntercept(State(shape), AccessOf(write), msr));
  Count(msrs_);
  return true;
}

void AccessIntercepts::TellOfPort(Synic& synic, const PortAccess& access, const InstructionShape& shape, bool at_access,
                                  bool string) noexcept {
  std::array<uint8_t, 16> bytes{};
  std::transform(shape.bytes.begin(), shape.bytes.end(), bytes.begin(), [](std::byte byte) { return static_cast<uint8_t>(byte); });
  const InterceptedIo io{.access = AccessOf(access.write),
                         .port = access.port,
                         .size = access.bytes,
                         .string = string,
                         .rep = at_access && shape.repeat,
                         .instruction = std::span(bytes).first(at_access ? shape.byte_count : size_t{0})};
  Tell(synic, MakeIoPortIntercept(State(at_access ? shape : InstructionShape{}), io));
  Count(ports_);
}

AccessAnswer AccessIntercepts::OnPort(const PortAccess& access, std::span<std::byte> data) noexcept {
  Synic* const synic = SynicOf(environment_.ports.Find(vtl_, access.port, access.bytes, access.write));
  if (synic == nullptr) return AccessAnswer::kUnclaimed;
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
  const AccessRegisters registers = AccessRegistersOf(environment_.processor.vcpu(vtl_.raw()));
  const InstructionShape shape = DescribeInstruction(registers, environment_.memory, view);
  const bool same_kind = shape.port && shape.port_input != access.write;
  if (!access.write) {
    TellOfPort(*synic, access, shape, same_kind, same_kind && shape.port_string);
    if (same_kind && shape.port_string) LoadStringTargets(registers, environment_.memory, view, access.bytes, data);
    return AccessAnswer::kNotMade;
  }
  // An OUT is where RIP is. OUTS is there too in the middle of a repeat, with registers that are the next iteration's already; else what
  // is at RIP comes after it, and may be an OUT of the same byte, which is taken for it then.
  const bool is_out = same_kind && !shape.port_string && data.size() <= sizeof(registers.gpr[0]) &&
                      std::memcmp(data.data(), &registers.gpr[0], data.size()) == 0;
  TellOfPort(*synic, access, shape, is_out, !is_out);
  if (is_out) return AccessAnswer::kNotMade;
  held_ = Held{.port = access.port, .bytes = access.bytes, .data = {}};
  std::copy_n(data.begin(), std::min(data.size(), held_->data.size()), held_->data.begin());
  return AccessAnswer::kDone;
}

void AccessIntercepts::Resume() noexcept {
  if (!held_) return;
  const PortAccess access{.port = held_->port, .bytes = held_->bytes, .count = 1, .write = true};
  if (Synic* const synic = SynicOf(environment_.ports.Find(vtl_, access.port, access.bytes, /*write=*/true))) {
    return TellOfPort(*synic, access, InstructionShape{}, /*at_access=*/false, /*string=*/true);
  }
  environment_.processor.WritePort(held_->port, std::span(held_->data).first(std::min<size_t>(held_->bytes, held_->data.size())));
  held_.reset();
}

}  // namespace vmm
