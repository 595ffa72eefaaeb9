package rainband.peers;

import java.util.Map;
import org.apache.storm.task.ShellBolt;
import org.apache.storm.topology.IRichBolt;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.tuple.Fields;

/** A bolt written in Python, spoken to over Storm's multilang pipes; its process counts by itself. */
final class PipeBolt extends ShellBolt implements IRichBolt {
  private final String[] fields;

  PipeBolt(String python, String script, String kind, String... fields) {
    super(python, script, kind);
    this.fields = fields;
  }

  @Override
  public void declareOutputFields(OutputFieldsDeclarer declarer) {
    if (fields.length > 0) {
      declarer.declare(new Fields(fields));
    }
  }

  @Override
  public Map<String, Object> getComponentConfiguration() {
    return null;
  }
}
