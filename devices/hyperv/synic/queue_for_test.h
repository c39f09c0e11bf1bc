// A queue with its region, doorbell and producers, and lanes on demand. Testonly; use it where the queue is part of what is
// tested.
#ifndef VMM_DEVICES_HYPERV_SYNIC_QUEUE_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_SYNIC_QUEUE_FOR_TEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/post_result.h"

namespace vmm {

class QueueForTest final {
 public:
  static constexpr unsigned kSource = 5;
  static constexpr uint32_t kLaneCapacity = 8;

  explicit QueueForTest(QueueShape shape)
      : shape_(shape),
        region_(QueueMap::RegionBytes(shape)),
        doorbell_line_(sizeof(DoorbellLine)),
        queue_(MessageQueue::Create(region_.bytes(), shape, doorbell(), kSource).value()) {
    for (uint32_t n = 0; n < shape.producers; ++n) {
      producers_.push_back(MessageProducer::Attach(region_.bytes(), shape, n, doorbell(), kSource).value());
    }
  }

  LaneProducer AddLane(uint64_t origination_id) {
    lanes_.push_back(std::make_unique<SharedRegion>(LaneProducer::RegionBytes(kLaneCapacity)));
    const auto bytes = lanes_.back()->bytes();
    queue_->AttachLane(LaneConsumer::Create(bytes, kLaneCapacity, origination_id).value()).value();
    return LaneProducer::Attach(bytes, kLaneCapacity).value();
  }
  PostResult Post(uint32_t producer, uint32_t sequence) {
    return producers_[producer].TryPost(MakeMessage(producer, sequence));
  }

  MessageQueue& queue() { return *queue_; }
  MessageProducer& producer(uint32_t n) { return producers_[n]; }
  Doorbell doorbell() { return Doorbell(doorbell_line_.at<DoorbellLine>(0)); }
  QueueHeader& header() { return region_.at<QueueHeader>(0); }
  LaneHeader& lane_header(uint32_t n) { return lanes_[n]->at<LaneHeader>(0); }
  std::span<std::byte> lane_bytes(uint32_t n) { return lanes_[n]->bytes(); }
  HvMessage& slot(uint32_t n) {
    return region_.at<HvMessage>(sizeof(QueueHeader) + shape_.producers * sizeof(QueueProducerLine) + n * sizeof(HvMessage));
  }

 private:
  const QueueShape shape_;
  SharedRegion region_;
  SharedRegion doorbell_line_;
  std::unique_ptr<MessageQueue> queue_;
  std::vector<MessageProducer> producers_;
  std::vector<std::unique_ptr<SharedRegion>> lanes_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_QUEUE_FOR_TEST_H_
