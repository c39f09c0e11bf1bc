#include "devices/pci/msix_table.h"

#include <poll.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "devices/pci/pci_layout.h"

namespace vmm {
namespace {

bool Signalled(int event_fd) noexcept {
  pollfd poll_fd{event_fd, POLLIN, 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLIN) != 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MsixTable>> MsixTable::Create(MsiRouter& router, uint16_t vectors, std::span<const int> sources) {
  if (vectors == 0 || vectors > pci::kMsixMaxVectors) {
    return absl::InvalidArgumentError(absl::StrCat("make MSI-X table: ", vectors, " vectors is not 1 to ", pci::kMsixMaxVectors));
  }
  ASSIGN_OR_RETURN(const uint32_t first, router.Reserve(vectors));
  return std::unique_ptr<MsixTable>(new MsixTable(router, first, vectors, sources));
}

MsixTable::MsixTable(MsiRouter& router, uint32_t first_interrupt, uint16_t vectors, std::span<const int> sources)
    : router_(router), first_interrupt_(first_interrupt), entries_(vectors) {
  for (const int source : sources) sources_.push_back({.event_fd = source});
}

MsixTable::~MsixTable() {
  for (Source& source : sources_) Disconnect(source);
}

uint32_t MsixTable::table_bytes() const noexcept { return static_cast<uint32_t>(entries_.size()) * pci::kMsixEntryBytes; }
uint32_t MsixTable::pending_bytes() const noexcept { return (static_cast<uint32_t>(entries_.size()) + 63) / 64 * 8; }

uint32_t MsixTable::ReadWord(uint32_t offset) const noexcept {
  const Entry& entry = entries_[offset / pci::kMsixEntryBytes];
  switch (offset % pci::kMsixEntryBytes) {
    case 0: return static_cast<uint32_t>(entry.address);
    case 4: return static_cast<uint32_t>(entry.address >> 32);
    case pci::kMsixEntryData: return entry.data;
    default: return entry.control;
  }
}

// Aligned accesses of 4 and 8 bytes are all that the specification defines: others read ones and write nothing.
void MsixTable::ReadTable(uint32_t offset, std::span<std::byte> data) const noexcept {
  if (data.size() % 4 != 0 || offset % data.size() != 0) return;
  for (size_t i = 0; i + 4 <= data.size() && offset + i + 4 <= table_bytes(); i += 4) {
    const uint32_t word = ReadWord(offset + static_cast<uint32_t>(i));
    std::memcpy(data.data() + i, &word, 4);
  }
}

void MsixTable::WriteTable(uint32_t offset, std::span<const std::byte> data) noexcept {
  if (data.size() % 4 != 0 || offset % data.size() != 0) return;
  for (size_t i = 0; i + 4 <= data.size() && offset + i + 4 <= table_bytes(); i += 4) {
    const uint32_t at = offset + static_cast<uint32_t>(i);
    uint32_t word;
    std::memcpy(&word, data.data() + i, 4);
    if (ReadWord(at) == word) continue;
    Entry& entry = entries_[at / pci::kMsixEntryBytes];
    switch (at % pci::kMsixEntryBytes) {
      case 0: entry.address = (entry.address & ~uint64_t{0xffff'ffff}) | word; break;
      case 4: entry.address = (entry.address & 0xffff'ffff) | uint64_t{word} << 32; break;
      case pci::kMsixEntryData: entry.data = word; break;
      default: entry.control = word & pci::kMsixEntryMasked; continue;
    }
    entry.routed = false;
  }
  Apply();
}

void MsixTable::ReadPending(uint32_t offset, std::span<std::byte> data) const noexcept {
  if (data.size() % 4 != 0 || offset % data.size() != 0 || data.size() > pending_bytes() || offset > pending_bytes() - data.size()) return;
  std::memset(data.data(), 0, data.size());
  for (const Source& source : sources_) {
    if (source.vector == kNoVector || source.connected || !Signalled(source.event_fd)) continue;
    const uint32_t byte = source.vector / 8;
    if (byte >= offset && byte < offset + data.size()) data[byte - offset] |= std::byte{1} << (source.vector % 8);
  }
}

void MsixTable::SetControl(bool enabled, bool function_masked) noexcept {
  if (enabled_ == enabled && function_masked_ == function_masked) return;
  enabled_ = enabled;
  function_masked_ = function_masked;
  Apply();
}

bool MsixTable::SetVector(size_t source, uint16_t vector) noexcept {
  const bool known = vector < entries_.size();
  Source& changed = sources_[source];
  const uint16_t wanted = known ? vector : kNoVector;
  if (wanted != changed.vector) {
    Disconnect(changed);
    changed.vector = wanted;
    Apply();
  }
  return known || vector == kNoVector;
}

void MsixTable::SetLive(bool live) noexcept {
  if (live_ == live) return;
  live_ = live;
  Apply();
}

void MsixTable::ResetSources() noexcept {
  live_ = false;
  for (Source& source : sources_) {
    Disconnect(source);
    source.vector = kNoVector;
  }
}

bool MsixTable::Wanted(const Source& source) const noexcept {
  return live_ && enabled_ && !function_masked_ && source.vector != kNoVector &&
         (entries_[source.vector].control & pci::kMsixEntryMasked) == 0;
}

void MsixTable::Disconnect(Source& source) noexcept {
  if (!source.connected) return;
  if (!router_.Disconnect(source.event_fd, first_interrupt_ + source.vector).ok()) ++faults_;
  source.connected = false;
}

void MsixTable::Apply() noexcept {
  std::vector<MsiMessage> messages;
  for (const Source& source : sources_) {
    if (!Wanted(source) || entries_[source.vector].routed) continue;
    Entry& entry = entries_[source.vector];
    entry.routed = true;
    messages.push_back({first_interrupt_ + source.vector, entry.address, entry.data});
  }
  if (!messages.empty() && !router_.Route(messages).ok()) ++faults_;
  for (Source& source : sources_) {
    const bool wanted = Wanted(source);
    if (wanted == source.connected) continue;
    if (!wanted) {
      Disconnect(source);
    } else if (router_.Connect(source.event_fd, first_interrupt_ + source.vector).ok()) {
      source.connected = true;
    } else {
      ++faults_;
    }
  }
}

}  // namespace vmm
