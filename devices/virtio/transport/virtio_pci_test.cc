#include "devices/virtio/transport/virtio_pci.h"

#include <cstring>
#include <map>
#include <memory>
#include <span>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "devices/pci/fake_msi_router.h"
#include "devices/pci/pci_layout.h"
#include "devices/virtio/fake_virtio_endpoint.h"
#include "devices/virtio/transport/doorbells.h"
#include "devices/virtio/transport/virtio_pci_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace v = virtio;
namespace vp = virtio_pci;

class FakeDoorbells final : public Doorbells {
 public:
  absl::Status Add(int event_fd, Gpa address) override {
    if (refuse || bells.count(address.raw()) != 0) return absl::AlreadyExistsError("taken");
    bells[address.raw()] = event_fd;
    return absl::OkStatus();
  }
  absl::Status Remove(int event_fd, Gpa address) override {
    const auto found = bells.find(address.raw());
    EXPECT_TRUE(found != bells.end() && found->second == event_fd);
    if (found != bells.end()) bells.erase(found);
    return absl::OkStatus();
  }
  std::map<uint64_t, int> bells;
  bool refuse = false;
};

constexpr uint32_t kBar = 0xc000'0000;

class VirtioPciTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(function_, VirtioPci::Create(endpoint_, router_, doorbells_));
    function_->PlaceBar(kBar);
    Config16(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster);
  }
  template <typename T>
  T Bar(uint32_t offset) {
    T value = static_cast<T>(~T{0});
    function_->ReadBar(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <typename T>
  void SetBar(uint32_t offset, T value) {
    function_->WriteBar(offset, std::as_bytes(std::span(&value, 1)));
  }
  void Config16(uint32_t offset, uint16_t value) { function_->WriteConfig(offset, std::as_bytes(std::span(&value, 1))); }
  uint32_t Config32(uint32_t offset) {
    uint32_t value = 0;
    function_->ReadConfig(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  uint8_t Status() { return Bar<uint8_t>(vp::kDeviceStatus); }
  void SetStatus(uint8_t status) { SetBar(vp::kDeviceStatus, status); }
  void Accept(uint64_t features) {
    SetStatus(v::kStatusAcknowledge);
    SetStatus(v::kStatusAcknowledge | v::kStatusDriver);
    SetBar<uint32_t>(vp::kDriverFeatureSelect, 0);
    SetBar<uint32_t>(vp::kDriverFeature, static_cast<uint32_t>(features));
    SetBar<uint32_t>(vp::kDriverFeatureSelect, 1);
    SetBar<uint32_t>(vp::kDriverFeature, static_cast<uint32_t>(features >> 32));
    SetStatus(v::kStatusAcknowledge | v::kStatusDriver | v::kStatusFeaturesOk);
  }
  void SetUpQueue(uint16_t index, uint64_t at, uint16_t size = 64) {
    SetBar<uint16_t>(vp::kQueueSelect, index);
    SetBar<uint16_t>(vp::kQueueSize, size);
    SetBar<uint32_t>(vp::kQueueDesc, static_cast<uint32_t>(at));
    SetBar<uint32_t>(vp::kQueueDesc + 4, static_cast<uint32_t>(at >> 32));
    SetBar<uint64_t>(vp::kQueueDriver, at + 0x1000);
    SetBar<uint64_t>(vp::kQueueDevice, at + 0x2000);
    SetBar<uint16_t>(vp::kQueueEnable, 1);
  }
  void DriverOk() { SetStatus(Status() | v::kStatusDriverOk); }
  // A driver's whole way to a device that runs.
  void Run() {
    Accept(v::kFeatureVersion1 | v::kFeatureRingReset | 1);
    SetUpQueue(0, 0x1'0000'0000);
    DriverOk();
  }

  FakeVirtioEndpoint endpoint_{2};
  FakeMsiRouter router_;
  FakeDoorbells doorbells_;
  std::unique_ptr<VirtioPci> function_;
};

TEST_F(VirtioPciTest, IdentityAndCapabilitiesAreAModernDevices) {
  EXPECT_EQ(Config32(pci::kVendorId), 0x1044'1af4u);
  EXPECT_EQ(Config32(pci::kRevision) & 0xff, 1u);
  std::map<int, uint32_t> offsets;
  int msix = 0;
  for (uint32_t at = Config32(pci::kCapabilityPointer) & 0xff; at != 0; at = Config32(at) >> 8 & 0xff) {
    if ((Config32(at) & 0xff) == pci::kCapabilityMsix) ++msix;
    if ((Config32(at) & 0xff) == pci::kCapabilityVendor) offsets[Config32(at) >> 24] = Config32(at + vp::kCapabilityOffset);
  }
  EXPECT_EQ(msix, 1);
  EXPECT_EQ(offsets, (std::map<int, uint32_t>{{vp::kCommonCfg, vp::kCommonOffset},
                                              {vp::kNotifyCfg, vp::kNotifyOffset},
                                              {vp::kIsrCfg, vp::kIsrOffset},
                                              {vp::kDeviceCfg, vp::kDeviceOffset},
                                              {vp::kPciCfg, 0}}));
}

TEST_F(VirtioPciTest, ADriverNegotiatesSetsUpQueuesAndStartsTheDevice) {
  SetBar<uint32_t>(vp::kDeviceFeatureSelect, 1);
  EXPECT_EQ(Bar<uint32_t>(vp::kDeviceFeature), static_cast<uint32_t>(endpoint_.offered >> 32));
  SetBar<uint32_t>(vp::kDeviceFeatureSelect, 2);
  EXPECT_EQ(Bar<uint32_t>(vp::kDeviceFeature), 0u);
  EXPECT_EQ(Bar<uint16_t>(vp::kNumQueues), 2);
  Accept(v::kFeatureVersion1 | 1);
  EXPECT_EQ(Status(), v::kStatusAcknowledge | v::kStatusDriver | v::kStatusFeaturesOk);
  SetUpQueue(1, 0x1'0000'0000, 128);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueNotifyOff), 1);
  EXPECT_TRUE(doorbells_.bells.empty());
  DriverOk();
  EXPECT_TRUE(endpoint_.running);
  EXPECT_EQ(endpoint_.accepted, v::kFeatureVersion1 | 1);
  ASSERT_EQ(endpoint_.started.size(), 1u);
  EXPECT_EQ(endpoint_.started[0].index, 1);
  EXPECT_EQ(endpoint_.started[0].size, 128);
  EXPECT_EQ(endpoint_.started[0].descriptors, Gpa(0x1'0000'0000));
  EXPECT_EQ(endpoint_.started[0].device, Gpa(0x1'0000'2000));
  EXPECT_EQ(doorbells_.bells.at(kBar + vp::kNotifyOffset + 4), endpoint_.kick_fd(1));
}

TEST_F(VirtioPciTest, FeaturesThatWereNotOfferedOrNoVersion1AreRefused) {
  Accept(v::kFeatureVersion1 | 2);
  EXPECT_EQ(Status() & v::kStatusFeaturesOk, 0);
  SetStatus(0);
  Accept(1);
  EXPECT_EQ(Status() & v::kStatusFeaturesOk, 0);
  DriverOk();
  EXPECT_FALSE(endpoint_.running);
  SetStatus(0);
  Accept(v::kFeatureVersion1);
  SetBar<uint32_t>(vp::kDriverFeatureSelect, 0);
  SetBar<uint32_t>(vp::kDriverFeature, 1);  // too late
  EXPECT_EQ(Bar<uint32_t>(vp::kDriverFeature), 0u);
}

TEST_F(VirtioPciTest, AResetStopsTheDeviceAndForgetsEverything) {
  Run();
  function_->OnNeedsReset();
  EXPECT_NE(Status() & v::kStatusNeedsReset, 0);
  SetStatus(0);
  EXPECT_EQ(Status(), 0);
  EXPECT_EQ(endpoint_.stops, 1);
  EXPECT_TRUE(doorbells_.bells.empty());
  EXPECT_EQ(Bar<uint8_t>(vp::kIsrOffset), 0);
  SetBar<uint16_t>(vp::kQueueSelect, 0);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueEnable), 0);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueSize), 256);
  EXPECT_EQ(Bar<uint64_t>(vp::kQueueDesc), 0u);
  SetStatus(0);
  EXPECT_EQ(endpoint_.stops, 1);
}

TEST_F(VirtioPciTest, QueuesOfAWrongSizeOrAlignmentNeedAReset) {
  for (const uint16_t size : {0, 3, 512}) {
    Accept(v::kFeatureVersion1);
    SetUpQueue(0, 0x1000, size);
    DriverOk();
    EXPECT_NE(Status() & v::kStatusNeedsReset, 0) << size;
    EXPECT_FALSE(endpoint_.running);
    SetStatus(0);
  }
  Accept(v::kFeatureVersion1);
  SetUpQueue(0, 0x1008);
  DriverOk();
  EXPECT_NE(Status() & v::kStatusNeedsReset, 0);
}

TEST_F(VirtioPciTest, ADeviceThatDoesNotStartNeedsAResetAndSaysSoByAnInterrupt) {
  endpoint_.works = false;
  Run();
  EXPECT_NE(Status() & v::kStatusNeedsReset, 0);
  EXPECT_EQ(Bar<uint8_t>(vp::kIsrOffset), vp::kIsrConfig);
  EXPECT_EQ(Bar<uint8_t>(vp::kIsrOffset), 0);  // read clears
}

TEST_F(VirtioPciTest, AnEnabledQueueDoesNotChange) {
  Accept(v::kFeatureVersion1);
  SetUpQueue(0, 0x1000);
  SetBar<uint16_t>(vp::kQueueSize, 128);
  SetBar<uint64_t>(vp::kQueueDesc, 0x9000);
  SetBar<uint16_t>(vp::kQueueEnable, 0);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueSize), 64);
  EXPECT_EQ(Bar<uint64_t>(vp::kQueueDesc), 0x1000u);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueEnable), 1);
}

TEST_F(VirtioPciTest, AQueueThatIsNotThereHasSizeZero) {
  SetBar<uint16_t>(vp::kQueueSelect, 2);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueSize), 0);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueMsixVector), 0xffff);
  SetBar<uint16_t>(vp::kQueueEnable, 1);
  SetBar<uint16_t>(vp::kQueueSelect, 0xffff);
  SetBar<uint64_t>(vp::kQueueDesc, 0x9000);
}

TEST_F(VirtioPciTest, OneQueueIsResetAndEnabledAgain) {
  Run();
  SetBar<uint16_t>(vp::kQueueReset, 1);
  EXPECT_EQ(endpoint_.stopped, std::vector<uint16_t>({0}));
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueReset), 0);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueEnable), 0);
  SetUpQueue(0, 0x5000, 32);
  ASSERT_EQ(endpoint_.started.size(), 2u);
  EXPECT_EQ(endpoint_.started[1].descriptors, Gpa(0x5000));
  EXPECT_EQ(endpoint_.started[1].size, 32);
}

TEST_F(VirtioPciTest, KicksGoByDoorbellWhereverTheBarIsAndElseByTheBus) {
  Run();
  EXPECT_EQ(doorbells_.bells.count(kBar + vp::kNotifyOffset), 1u);
  const uint32_t moved = 0xc100'0000;
  function_->WriteConfig(pci::kBar0, std::as_bytes(std::span(&moved, 1)));
  EXPECT_EQ(function_->bar(), Gpa(moved));
  EXPECT_EQ(doorbells_.bells.count(kBar + vp::kNotifyOffset), 0u);
  EXPECT_EQ(doorbells_.bells.at(moved + vp::kNotifyOffset), endpoint_.kick_fd(0));
  doorbells_.refuse = true;
  function_->WriteConfig(pci::kBar0, std::as_bytes(std::span(&kBar, 1)));
  EXPECT_TRUE(doorbells_.bells.empty());
  SetBar<uint16_t>(vp::kNotifyOffset + 4, 1);
  EXPECT_EQ(endpoint_.kicks[1].Drain(), 1u);
  SetBar<uint16_t>(vp::kNotifyOffset + 8, 2);  // no such queue
  EXPECT_EQ(function_->stats().trapped_notifications, 2u);
  Config16(pci::kCommand, 0);
  EXPECT_EQ(function_->bar(), std::nullopt);
}

TEST_F(VirtioPciTest, VectorsLeadWhereTheTableSays) {
  // Message control is the upper half of the capability's first word.
  uint32_t msix = 0;
  for (uint32_t at = Config32(pci::kCapabilityPointer) & 0xff; at != 0; at = Config32(at) >> 8 & 0xff) {
    if ((Config32(at) & 0xff) == pci::kCapabilityMsix) msix = at;
  }
  EXPECT_EQ(Config32(msix) >> 16, 2u);  // three vectors
  Config16(msix + 2, pci::kMsixEnable);
  for (uint32_t vector = 0; vector < 3; ++vector) {
    SetBar<uint32_t>(vp::kMsixTableOffset + 16 * vector, 0xfee0'0000);
    SetBar<uint32_t>(vp::kMsixTableOffset + 16 * vector + 8, 0x40 + vector);
    SetBar<uint32_t>(vp::kMsixTableOffset + 16 * vector + 12, 0);
  }
  Accept(v::kFeatureVersion1);
  SetBar<uint16_t>(vp::kConfigMsixVector, 0);
  SetBar<uint16_t>(vp::kQueueSelect, 1);
  SetBar<uint16_t>(vp::kQueueMsixVector, 2);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueMsixVector), 2);
  SetBar<uint16_t>(vp::kQueueMsixVector, 3);
  EXPECT_EQ(Bar<uint16_t>(vp::kQueueMsixVector), 0xffff);
  SetBar<uint16_t>(vp::kQueueMsixVector, 2);
  SetUpQueue(1, 0x1000);
  EXPECT_EQ(router_.changes, 0);
  DriverOk();
  EXPECT_EQ(router_.changes, 1);
  EXPECT_EQ(router_.DataOf(endpoint_.call_fd(1)), 0x42u);
  EXPECT_EQ(router_.DataOf(endpoint_.call_fd(0)), 0u);
  EXPECT_EQ(router_.connected.size(), 2u);  // and configuration changes
  SetStatus(0);
  EXPECT_TRUE(router_.connected.empty());
}

TEST_F(VirtioPciTest, DeviceConfigurationIsReadAndWrittenAndChangesHaveAGeneration) {
  EXPECT_EQ(Bar<uint8_t>(vp::kDeviceOffset + 1), 'o');
  EXPECT_EQ(Bar<uint8_t>(vp::kDeviceOffset + 100), 0xff);
  SetBar<uint8_t>(vp::kDeviceOffset, 'C');
  EXPECT_EQ(endpoint_.config, "config");  // before FEATURES_OK
  Accept(v::kFeatureVersion1);
  SetBar<uint8_t>(vp::kDeviceOffset, 'C');
  EXPECT_EQ(endpoint_.config, "Config");
  const uint8_t before = Bar<uint8_t>(vp::kConfigGeneration);
  function_->OnConfigChanged();
  EXPECT_EQ(Bar<uint8_t>(vp::kConfigGeneration), before + 1);
}

TEST_F(VirtioPciTest, TheConfigurationWindowReachesTheBar) {
  uint32_t window = 0;
  for (uint32_t at = Config32(pci::kCapabilityPointer) & 0xff; at != 0; at = Config32(at) >> 8 & 0xff) {
    if ((Config32(at) & 0xff) == pci::kCapabilityVendor && Config32(at) >> 24 == vp::kPciCfg) window = at;
  }
  const auto set = [&](uint32_t offset, uint32_t value) { function_->WriteConfig(window + offset, std::as_bytes(std::span(&value, 1))); };
  set(vp::kCapabilityOffset, vp::kNumQueues);
  set(vp::kCapabilityLength, 2);
  EXPECT_EQ(Config32(window + vp::kPciCfgData) & 0xffff, 2u);
  set(vp::kCapabilityOffset, vp::kNotifyOffset + 4);
  set(vp::kPciCfgData, 1);
  EXPECT_EQ(endpoint_.kicks[1].Drain(), 1u);
  set(vp::kCapabilityLength, 8);
  set(vp::kPciCfgData, 1);
  set(vp::kCapabilityLength, 4);
  set(vp::kCapabilityOffset, 0xffff'fffc);
  set(vp::kPciCfgData, 1);
  EXPECT_EQ(endpoint_.kicks[1].Drain(), 0u);
}

TEST_F(VirtioPciTest, EveryAccessOfEverySizeIsSurvived) {
  for (const bool live : {false, true}) {
    if (live) Run();
    for (uint32_t offset = 0; offset < vp::kBarBytes; offset += 2) {
      Bar<uint8_t>(offset);
      Bar<uint16_t>(offset);
      Bar<uint32_t>(offset);
      Bar<uint64_t>(offset);
      SetBar<uint8_t>(offset, 0xff);
      SetBar<uint16_t>(offset, 0xffff);
      SetBar<uint32_t>(offset, 0xffff'ffff);
      SetBar<uint64_t>(offset, ~uint64_t{0});
    }
  }
}

}  // namespace
}  // namespace vmm
