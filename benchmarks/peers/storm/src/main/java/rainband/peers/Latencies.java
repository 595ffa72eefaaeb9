package rainband.peers;

import java.util.concurrent.atomic.AtomicLongArray;

/**
 * Complete latency of every 64th root tuple of one spout task, as a histogram of microseconds. Buckets are
 * exact below 64 us and 1/64 of a power of two above, so a percentile is right within 1.6 %.
 */
final class Latencies {
  static final int EVERY = 64;
  private static final int SUB = 64;
  private static final int SUB_BITS = 6;
  private static final int RING = 1 << 17;
  private final long[] started = new long[RING];
  private final AtomicLongArray counts = new AtomicLongArray(SUB * 40);

  void begin(long id) {
    if (id % EVERY == 0) {
      started[(int) (id / EVERY) & (RING - 1)] = System.nanoTime();
    }
  }

  void end(long id) {
    if (id % EVERY == 0) {
      long us = (System.nanoTime() - started[(int) (id / EVERY) & (RING - 1)]) / 1000;
      int bucket = bucket(us);
      counts.lazySet(bucket, counts.get(bucket) + 1);
    }
  }

  static int bucket(long us) {
    if (us < SUB) {
      return (int) us;
    }
    int power = 63 - Long.numberOfLeadingZeros(us);
    return (power - SUB_BITS + 1) * SUB + (int) (us >>> (power - SUB_BITS)) - SUB;
  }

  /** The lowest number of microseconds that falls into a bucket. */
  static long floor(int bucket) {
    if (bucket < SUB) {
      return bucket;
    }
    int power = bucket / SUB + SUB_BITS - 1;
    return ((long) (bucket % SUB) + SUB) << (power - SUB_BITS);
  }

  /** The histogram so far, as {"microseconds": count}. */
  String json() {
    StringBuilder out = new StringBuilder("{");
    for (int i = 0; i < counts.length(); i++) {
      long n = counts.get(i);
      if (n > 0) {
        out.append(out.length() > 1 ? "," : "").append('"').append(floor(i)).append("\":").append(n);
      }
    }
    return out.append('}').toString();
  }
}
