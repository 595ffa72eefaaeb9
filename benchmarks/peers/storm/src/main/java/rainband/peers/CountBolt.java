package rainband.peers;

import java.util.HashMap;
import java.util.Map;
import org.apache.storm.task.OutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.base.BaseRichBolt;
import org.apache.storm.tuple.Tuple;

/** How often each word came. */
final class CountBolt extends BaseRichBolt {
  private transient OutputCollector collector;
  private transient Map<String, long[]> counts;
  private transient Gauge reached;
  private transient Gauge distinct;

  @Override
  public void prepare(Map<String, Object> conf, TopologyContext context, OutputCollector out) {
    collector = out;
    counts = new HashMap<>();
    reached = Meter.of(conf).gauge("reached");
    distinct = Meter.of(conf).gauge("distinct");
  }

  @Override
  public void execute(Tuple tuple) {
    String word = tuple.getString(0);
    long[] count = counts.get(word);
    if (count == null) {
      count = new long[1];
      counts.put(word, count);
      distinct.add(1);
    }
    count[0]++;
    reached.add(1);
    collector.ack(tuple);
  }

  @Override
  public void declareOutputFields(OutputFieldsDeclarer declarer) {}
}
