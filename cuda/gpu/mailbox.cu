#include "gpu/mailbox.h"

namespace scene3d {
namespace gpu {

#if !defined(S3D_EMULATE)

// At the end of a process the driver may be gone already: errors mean nothing then.
Mailbox::~Mailbox() {
  if (event_) static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event_)));
  if (slot_) static_cast<void>(cudaFreeHost(slot_));
}

void Mailbox::send(const float* from, Stream stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  if (!slot_) check(cudaMallocHost(&slot_, sizeof(float)), "memory of the host");
  if (!event_) {
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
    event_ = event;
  }
  check(cudaMemcpyAsync(slot_, from, sizeof(float), cudaMemcpyDeviceToHost, s), "copy to host");
  check(cudaEventRecord(static_cast<cudaEvent_t>(event_), s), "record event");
}

float Mailbox::wait() {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(event_)), "wait for event");
  return *slot_;
}

#else

Mailbox::~Mailbox() { delete slot_; }

void Mailbox::send(const float* from, Stream) {
  if (!slot_) slot_ = new float;
  *slot_ = *from;
}

float Mailbox::wait() { return *slot_; }

#endif

}  // namespace gpu
}  // namespace scene3d
