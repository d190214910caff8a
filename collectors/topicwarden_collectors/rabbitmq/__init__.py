"""RabbitMQ: its event, log and trace exchanges, our plugin's stream, its configuration; and the demo."""
