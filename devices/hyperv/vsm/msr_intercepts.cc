#include "devices/hyperv/vsm/msr_intercepts.h"

#include <algorithm>
#include <array>

namespace vmm {
namespace {

constexpr std::array kMsrs = {
    InterceptedMsr{0x1b, CrEvent::kApicBaseRead, CrEvent::kApicBaseWrite},
    InterceptedMsr{0x8c, std::nullopt, CrEvent::kSgxControlWrite},  // IA32_SGXLEPUBKEYHASH0 to 3
    InterceptedMsr{0x8d, std::nullopt, CrEvent::kSgxControlWrite},
    InterceptedMsr{0x8e, std::nullopt, CrEvent::kSgxControlWrite},
    InterceptedMsr{0x8f, std::nullopt, CrEvent::kSgxControlWrite},
    InterceptedMsr{0x174, std::nullopt, CrEvent::kSysenterCsWrite},
    InterceptedMsr{0x175, std::nullopt, CrEvent::kSysenterEspWrite},
    InterceptedMsr{0x176, std::nullopt, CrEvent::kSysenterEipWrite},
    InterceptedMsr{0x1a0, CrEvent::kMiscEnableRead, CrEvent::kMiscEnableWrite},
    InterceptedMsr{0xc000'0080, CrEvent::kEferRead, CrEvent::kEferWrite},
    InterceptedMsr{0xc000'0081, CrEvent::kStarRead, CrEvent::kStarWrite},
    InterceptedMsr{0xc000'0082, CrEvent::kLstarRead, CrEvent::kLstarWrite},
    InterceptedMsr{0xc000'0083, CrEvent::kCstarRead, CrEvent::kCstarWrite},
    InterceptedMsr{0xc000'0084, std::nullopt, CrEvent::kSfmaskWrite},
    InterceptedMsr{0xc000'0103, std::nullopt, CrEvent::kTscAuxWrite},
};
static_assert(std::is_sorted(kMsrs.begin(), kMsrs.end(),
                             [](const InterceptedMsr& a, const InterceptedMsr& b) { return a.msr < b.msr; }));

}  // namespace

std::span<const InterceptedMsr> InterceptedMsrs() noexcept { return kMsrs; }

std::optional<CrEvent> CrEventOf(uint32_t msr, bool write) noexcept {
  const auto row = std::lower_bound(kMsrs.begin(), kMsrs.end(), msr,
                                    [](const InterceptedMsr& candidate, uint32_t wanted) { return candidate.msr < wanted; });
  if (row == kMsrs.end() || row->msr != msr) return std::nullopt;
  return write ? row->write : row->read;
}

uint64_t MsrCrEvents() noexcept {
  uint64_t events = 0;
  for (const InterceptedMsr& row : kMsrs) {
    if (row.read) events |= CrEventBit(*row.read);
    if (row.write) events |= CrEventBit(*row.write);
  }
  return events;
}

}  // namespace vmm
