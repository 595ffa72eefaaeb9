package rainband.peers;

import java.util.Map;
import org.apache.storm.spout.SpoutOutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.base.BaseRichSpout;
import org.apache.storm.tuple.Fields;
import org.apache.storm.tuple.Values;

/** Emits one root tuple per call and counts what came back; what the tuple holds is left to its kinds. */
abstract class RootSpout extends BaseRichSpout {
  private final String field;
  private final boolean acking;
  private long next;
  private transient SpoutOutputCollector collector;
  private transient Meter meter;
  private transient Latencies latencies;
  private transient Gauge roots;
  private transient Gauge emitted;
  private transient Gauge acked;
  private transient Gauge failed;

  RootSpout(String field, boolean acking) {
    this.field = field;
    this.acking = acking;
  }

  /** The value of root tuple number id. */
  abstract String value(long id);

  /** How many tuples reach the last bolt because of it. */
  abstract long weight(long id);

  @Override
  public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) {
    collector = out;
    meter = Meter.of(conf);
    latencies = meter.latencies();
    roots = meter.gauge("roots");
    emitted = meter.gauge("emitted");
    acked = meter.gauge("acked");
    failed = meter.gauge("failed");
  }

  @Override
  public void nextTuple() {
    if (meter.stopped()) {
      return;
    }
    long id = next++;
    roots.add(1);
    emitted.add(weight(id));
    if (acking) {
      latencies.begin(id);
      collector.emit(new Values(value(id)), id);
    } else {
      collector.emit(new Values(value(id)));
    }
  }

  @Override
  public void ack(Object id) {
    latencies.end((Long) id);
    acked.add(weight((Long) id));
  }

  @Override
  public void fail(Object id) {
    failed.add(1);
  }

  @Override
  public void declareOutputFields(OutputFieldsDeclarer declarer) {
    declarer.declare(new Fields(field));
  }
}
