package rainband.peers;

import java.util.Map;
import org.apache.storm.task.OutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.base.BaseRichBolt;
import org.apache.storm.tuple.Tuple;

/** The end of the chain: counts and forgets. */
final class NullBolt extends BaseRichBolt {
  private transient OutputCollector collector;
  private transient Gauge reached;

  @Override
  public void prepare(Map<String, Object> conf, TopologyContext context, OutputCollector out) {
    collector = out;
    reached = Meter.of(conf).gauge("reached");
  }

  @Override
  public void execute(Tuple tuple) {
    reached.add(1);
    collector.ack(tuple);
  }

  @Override
  public void declareOutputFields(OutputFieldsDeclarer declarer) {}
}
